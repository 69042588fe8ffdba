/** What becomes of TensorFlow's large blocks of memory, in a process of its own; for test/runtime/large_blocks.test.ts. */
import * as tf from '@tensorflow/tfjs';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { newBlock } from '../../src/base/blocks.js';
import { requireNear } from '../../src/base/package_files.js';
import { Program } from '../../src/jit/index.js';
import { selectBackend } from '../../src/runtime/index.js';
import { addonPath, runtimeDir } from '../../src/runtime/paths.js';
import { memoryOf } from './process_memory.js';

const COUNT = 1e7;

await selectBackend('cpu');
const guard = requireNear(path.join(path.dirname(addonPath(runtimeDir('cpu')!)), 'stderr_guard.node')) as {
  largeBlocksDropped(): number;
};
/** Bytes for which this process has asked for large pages. */
function advised(): number {
  let bytes = 0;
  for (const region of fs.readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m))
    if (/^VmFlags:.* hg( |$)/m.test(region)) bytes += 1024 * Number(/^Size: +([0-9]+)/m.exec(region)![1]);
  return bytes;
}

const asked = [advised()];

/** A function that makes a tensor of 40 MB op by op, keeps it, and gives its largest value. */
const made = new Program();
made.variable('w', { shape: [COUNT], dtype: 'float32', init: () => new Float32Array(COUNT).fill(2) });
made.define(
  'f',
  { x: { shape: [], dtype: 'float32' } },
  ({ x }, { w }) => {
    const sum = tf.add(w!, x!);
    return { outputs: { y: tf.max(sum) }, assign: { w: sum } };
  },
  { xla: false },
);
await made.compile();
const dropped = [guard.largeBlocksDropped()];
const values: number[] = [];
const call = async (x: number, wait: boolean): Promise<void> => {
  const { y } = wait ? made.callSync('f', { x }) : await made.call('f', { x });
  values.push(Number(y![0]));
  for (let i = 0; i < 200 && guard.largeBlocksDropped() === dropped.at(-1); i++) await sleep(10);
  dropped.push(guard.largeBlocksDropped());
};
await call(3, false);
await call(4, false);
// what JavaScript's thread frees goes on another
await call(5, true);
asked.push(advised());
const block = newBlock(4 * COUNT);
asked.push(advised());
if (block.byteLength !== 4 * COUNT) throw new Error(`a block of ${block.byteLength} bytes`);
const held = [memoryOf('RssAnon')!];
made.dispose();
for (
  let i = 0;
  i < 200 && (guard.largeBlocksDropped() === dropped.at(-1) || memoryOf('RssAnon')! > held[0]! - 30e6);
  i++
)
  await sleep(10);
dropped.push(guard.largeBlocksDropped());
held.push(memoryOf('RssAnon')!);
process.stdout.write(JSON.stringify({ values, dropped, advised: asked, held }));
