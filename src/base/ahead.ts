/** Work that is begun, and items that are asked for, before their turn. */
import { letOthersRun } from './async.js';

/** A piece of work, and what its result takes of what is limited. */
export interface Weighed<T> {
  readonly weight: number;
  begin(): T | Promise<T>;
}

/** Results in order. Work is begun before its turn as long as all that is begun and not handed over weighs at most `most`. */
export async function* begunAhead<T>(work: readonly Weighed<T>[], most: number): AsyncGenerator<T> {
  const begun: Promise<T>[] = [];
  let weight = 0;
  for (let next = 0, turn = 0; turn < work.length; turn++) {
    while (next < work.length && (next === turn || weight + work[next]!.weight <= most)) {
      weight += work[next]!.weight;
      const result = Promise.resolve(work[next++]!.begin());
      result.catch(() => undefined); // it is told in its turn
      begun.push(result);
    }
    yield await begun.shift()!;
    weight -= work[turn]!.weight;
  }
}

/** Work that was given away and is not waited for at once, so that who does it never waits for the next; all of it weighs at most `most`, or is one piece. */
export class UnderWay {
  private readonly pieces: { weight: number; done: Promise<unknown> }[] = [];
  private weight = 0;

  constructor(private readonly most: number) {}

  /** Waits until there is room for the next piece. @throws what a piece before threw */
  async add(weight: number, done: Promise<unknown>): Promise<void> {
    done.catch(() => undefined); // it is told when it is waited for
    this.pieces.push({ weight, done });
    this.weight += weight;
    while (this.weight > this.most && this.pieces.length > 1) await this.oldest();
  }

  /** Waits for all of it. @throws what a piece threw */
  async end(): Promise<void> {
    while (this.pieces.length > 0) await this.oldest();
  }

  private async oldest(): Promise<void> {
    const { weight, done } = this.pieces.shift()!;
    this.weight -= weight;
    await done;
  }
}

/**
 * The same items, each of which is asked for while the one before is worked on.
 * @param most how many are wanted: no more are asked for
 */
export async function* askedAhead<T>(items: AsyncIterable<T> | Iterable<T>, most = Infinity): AsyncGenerator<T> {
  const from = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
  let asked = 0;
  const ask = async (): Promise<IteratorResult<T>> => from.next();
  // after whoever has the item has begun to work on it
  const askLater = (): Promise<IteratorResult<T>> => letOthersRun().then(ask);
  let next = most > 0 ? ask() : null;
  try {
    while (next) {
      const result = await next;
      if (result.done) return;
      next = ++asked < most ? askLater() : null;
      next?.catch(() => undefined); // it is told in its turn
      yield result.value;
    }
  } finally {
    await from.return?.();
  }
}
