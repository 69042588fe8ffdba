/** Keeps TensorFlow.js' build with threads from starting eight workers of its own, which it waits for and nobody uses: threads are those of our kernels. */

/** What of the place of a Worker is used. */
interface Place {
  Worker?: unknown;
}

/** Workers that it makes when it starts. */
const POOL = 8;

/** Says at once that it has loaded what it is told to load, and does nothing. */
class NoWorker {
  onmessage: ((event: { data: { cmd: string } }) => void) | null = null;
  onerror: unknown = null;

  postMessage({ cmd }: { cmd: string }): void {
    if (cmd === 'load') queueMicrotask(() => this.onmessage?.({ data: { cmd: 'loaded' } }));
  }

  terminate(): void {
    this.onmessage = null;
  }
}

/**
 * Starts what makes that pool, with none of it: the next eight workers are none, as far as they are made before anybody else runs.
 * @param start makes them before it waits for anything but promises that are kept
 */
export async function withoutPool<T>(start: () => Promise<T>): Promise<T> {
  const place = globalThis as Place;
  const { Worker } = place;
  let made = 0;
  const restore = (): void => {
    if (place.Worker === standIn) place.Worker = Worker;
  };
  const standIn = class extends NoWorker {
    constructor() {
      super();
      if (++made === POOL) restore();
    }
  };
  if (Worker) place.Worker = standIn;
  setTimeout(restore, 0);
  try {
    return await start();
  } finally {
    restore();
  }
}
