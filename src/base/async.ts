/** Promises: making room for others between pieces of work, and refusing them where an answer is wanted at once. */

/** Lets the event loop run once: timers, signals and whoever else waits. Between pieces of work that take longer than some milliseconds. */
export function letOthersRun(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === 'function') setImmediate(resolve);
    else setTimeout(resolve, 0);
  });
}

/** Whether a value is a promise. One that is refused must not end the process by failing later: nobody will look at it. */
export function isPromise(value: unknown): value is PromiseLike<unknown> {
  if (typeof value !== 'object' || value === null || !('then' in value) || typeof value.then !== 'function')
    return false;
  (value as PromiseLike<unknown>).then(undefined, () => undefined);
  return true;
}
