/** What the guard measures, and what each of it would be at the machine's own rates. */
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { multiplyAdds, stateBytes, stepBytes, WEIGHT_BYTES } from '../bounds.js';
import { ours } from '../peers/ours.js';
import type { Peer, Work } from '../peers/peer.js';
import { WorkerPeer } from '../peers/worker.js';
import { publicConfig } from '../random_checkpoint.js';
import type { Rates } from './rates.js';

const MODEL = '130m';
const PROMPT = 512;
const CONFIG = publicConfig(MODEL);

export interface GuardTask {
  name: string;
  work: Work;
  peer: () => Peer;
  unit: 'tok/s' | 's' | 'ms' | 'GB';
  /** The figure that the machine's rates allow. */
  bound: (rates: Rates) => number;
  /** Whether less is better. */
  less: boolean;
  rounds: number;
}

const { layers, head } = multiplyAdds(CONFIG);
const STATES = stateBytes(CONFIG);

const worker = (name: string, script: string, work: Work): Peer => {
  const file = fileURLToPath(new URL(script, import.meta.url));
  return new WorkerPeer(name, [process.execPath, '--import=tsx', file, 'compiled'], work);
};

/** @param folder where the checkpoints of random weights are */
export function guardTasks(folder: string, threads: number): GuardTask[] {
  const work = (task: Work['task'], tokens: number, rows = 1, dtype: Work['dtype'] = 'bfloat16'): Work => ({
    ...{ task, tokens, rows, dtype, threads, model: MODEL },
    checkpoint: path.join(folder, `${MODEL}-${dtype}`),
  });
  const decode = (engine: 'compiled' | 'int4', rows: number): GuardTask => {
    const own = work('decode', 32, rows);
    return {
      name: `decode, ${rows === 1 ? '1 row' : `${rows} rows`}, ${engine === 'int4' ? 'int4' : 'bf16'}`,
      work: own,
      peer: () => ours(engine, own),
      unit: 'tok/s',
      bound: ({ read }) => (rows * read) / stepBytes(CONFIG, engine === 'int4' ? 'int4' : 'bfloat16', rows),
      less: false,
      rounds: 7,
    };
  };
  const prefill = work('prefill', PROMPT);
  const train = work('train', PROMPT, 1, 'float32');
  const load = work('load', 16);
  const loop = work('decode', 64);
  const fileBytes = (layers + head) * WEIGHT_BYTES.bfloat16;
  return [
    ...([1, 8] as const).flatMap((rows) => [decode('compiled', rows), decode('int4', rows)]),
    {
      ...{ name: 'prefill, 512 tokens, bf16', work: prefill, peer: () => ours('compiled', prefill), unit: 'tok/s' },
      bound: ({ multiply }) => multiply / layers,
      ...{ less: false, rounds: 5 },
    },
    {
      ...{ name: 'training step, 512 tokens', work: train, peer: () => ours('compiled', train), unit: 'tok/s' },
      // forward, and two products of as many for the gradients
      bound: ({ multiply }) => multiply / (3 * (layers + head)),
      ...{ less: false, rounds: 4 },
    },
    {
      ...{ name: 'start to first token, bf16', work: load, peer: () => ours('compiled', load), unit: 's' },
      bound: ({ read }) => fileBytes / read,
      ...{ less: true, rounds: 5 },
    },
    {
      name: 'longest stop of the event loop',
      ...{ work: loop, peer: () => worker('loop', './loop_worker.ts', loop), unit: 'ms' },
      // one token
      bound: ({ read }) => (1000 * (fileBytes + STATES)) / read,
      ...{ less: true, rounds: 5 },
    },
  ];
}

/** The task whose process tells what memory decoding takes, and the bytes that its weights and states are. */
export const MEMORY = { task: 'decode, 1 row, bf16', name: 'peak memory, 1 row, bf16', bytes: () => (layers + head) * WEIGHT_BYTES.bfloat16 + STATES / 2 }; // prettier-ignore
