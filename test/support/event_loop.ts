/** How the event loop fares while something is done. */

/** What was seen of the event loop. */
export interface LoopTurns<T> {
  result: T;
  /** How often the event loop went round. */
  turns: number;
  /** The longest time between two rounds, in milliseconds. */
  longest: number;
  /** How long all of it took. */
  ms: number;
}

/** Counts the rounds of the event loop until the work has ended. */
export async function turnsDuring<T>(work: () => Promise<T>): Promise<LoopTurns<T>> {
  let [turns, longest, ended] = [0, 0, false];
  const began = performance.now();
  let last = began;
  const tick = (): void => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    turns++;
    if (!ended) setImmediate(tick);
  };
  setImmediate(tick);
  const result = await work();
  ended = true;
  const now = performance.now();
  return { result, turns, longest: Math.max(longest, now - last), ms: now - began };
}
