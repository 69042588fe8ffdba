/** Something that can be timed: one engine with one model, in a process of its own that is silent between rounds. */
export type Task = 'decode' | 'prefill' | 'train' | 'load';

export interface Work {
  task: Task;
  /** Checkpoint folder with the weights that all engines run. */
  checkpoint: string;
  /** Size name, for example 130m. */
  model: string;
  dtype: 'float32' | 'bfloat16';
  /** Prompt length of prefill, number of tokens decoded a round, or tokens of the one row of a training batch. */
  tokens: number;
  /** Rows that are decoded together. */
  rows: number;
  /** Threads that every engine gets. */
  threads: number;
}

export interface Peer {
  /** For the table. */
  readonly name: string;
  /** Version, known after start(). */
  readonly version: string;
  /** Loads the model and warms up, so that nothing is compiled or paged in during a round. */
  start(): Promise<void>;
  /** One timed round: tokens per second of all rows together, or seconds for 'load'. */
  round(): Promise<number>;
  stop(): Promise<void>;
  /** Most memory that its process held so far, in bytes; absent where it has no process of its own or that is not known. */
  peakMemory?(): number | null;
}

/** Why a peer is not in the table. */
export class MissingPeer extends Error {}

/** A peer that has been started; null, and a line that says why, where it is missing. */
export async function started(make: () => Peer): Promise<Peer | null> {
  try {
    const peer = make();
    process.stderr.write(`starting ${peer.name}\n`);
    await peer.start();
    return peer;
  } catch (error) {
    if (!(error instanceof MissingPeer)) throw error;
    process.stderr.write(`left out: ${error.message}\n`);
    return null;
  }
}
