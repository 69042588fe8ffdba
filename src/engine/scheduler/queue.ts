/** Who waits, and who is next: higher priorities first; within one the clients in turn; of each client the oldest. */

export interface Waiting {
  readonly priority: number;
  readonly client: string;
}

export class FairQueue<T extends Waiting> {
  /** By priority, then by client in the order of their turns. */
  private readonly levels = new Map<number, Map<string, T[]>>();
  private count = 0;

  get size(): number {
    return this.count;
  }

  push(item: T): void {
    this.lineOf(item).push(item);
    this.count++;
  }

  /** Brings back what gave way: it is the first of its priority to go on. */
  putBack(item: T): void {
    const line = [item, ...this.lineOf(item)];
    const level = this.levels.get(item.priority)!;
    const others = [...level].filter(([client]) => client !== item.client);
    this.levels.set(item.priority, new Map([[item.client, line], ...others]));
    this.count++;
  }

  /** The next that fits, which stays. */
  peek(fits: (item: T) => boolean = () => true): T | null {
    for (const priority of [...this.levels.keys()].sort((a, b) => b - a))
      for (const line of this.levels.get(priority)!.values()) {
        const item = line.find(fits);
        if (item) return item;
      }
    return null;
  }

  /** Takes an item out; its client goes behind the others. @returns whether it was there */
  take(item: T): boolean {
    const level = this.levels.get(item.priority);
    const line = level?.get(item.client);
    const at = line?.indexOf(item) ?? -1;
    if (at < 0) return false;
    line!.splice(at, 1);
    level!.delete(item.client);
    if (line!.length > 0) level!.set(item.client, line!);
    if (level!.size === 0) this.levels.delete(item.priority);
    this.count--;
    return true;
  }

  all(): T[] {
    return [...this.levels.values()].flatMap((level) => [...level.values()].flat());
  }

  private lineOf({ priority, client }: T): T[] {
    let level = this.levels.get(priority);
    if (!level) this.levels.set(priority, (level = new Map<string, T[]>()));
    let line = level.get(client);
    if (!line) level.set(client, (line = []));
    return line;
  }
}
