/** Calls that share one thing, one after another. */

/**
 * Runs pieces of work in the order they came, each alone. One that fails makes way as one that ends. Work must not wait for another turn of
 * the same Turns: that one waits for it.
 * @example
 * const turns = new Turns();
 * const [a, b] = await Promise.all([turns.take(async () => 1), turns.take(() => 2)]);
 */
export class Turns {
  /** Resolves when the last piece that was brought has ended; null when nothing runs. */
  private last: Promise<void> | null = null;

  /** Runs the work at once where nothing else does, else when all that came before has ended. */
  async take<T>(work: () => T | Promise<T>): Promise<T> {
    const before = this.last;
    let end!: () => void;
    const mine = new Promise<void>((resolve) => (end = resolve));
    this.last = mine;
    if (before) await before;
    try {
      return await work();
    } finally {
      if (this.last === mine) this.last = null;
      end();
    }
  }
}
