/** Runs worker threads that each load a model, generate and end; prints what they wrote. Started as a process by worker.test.ts. */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';

const self = fileURLToPath(import.meta.url);
/** Node 20 does not take its loaders along into a worker. */
const START = `import('tsx/esm/api').then(({ register }) => (register(), import(${JSON.stringify(self)})))`;
const { terminated } = (workerData ?? {}) as { terminated?: boolean };

async function generate(): Promise<string> {
  const { pipeline } = await import('../../src/pipelines/index.js');
  const generator = await pipeline('text-generation', 'models/tiny-books-mamba2', { device: 'cpu' });
  const [first] = await generator('Once upon a time', { max_new_tokens: 16 });
  if (!terminated) generator.dispose();
  return first!.generated_text;
}

/** One worker: it ends by itself, or is terminated as soon as it has told its text. */
function run(terminate: boolean): Promise<string> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(START, { eval: true, workerData: { terminated: terminate } });
    let text = '';
    worker.on('message', (message: string) => {
      text = message;
      if (terminate) void worker.terminate();
    });
    worker.on('error', reject);
    worker.on('exit', () => resolve(text));
  });
}

if (!isMainThread) {
  parentPort!.postMessage(await generate());
} else if (process.argv[2] === 'exit') {
  // memory is being compacted in the background then
  process.stdout.write(JSON.stringify([await generate()]), () => process.exit(0));
} else if (process.argv[2] === 'busy') {
  // both cores are busy: the race of a thread with the end of its environment is then lost more often
  const busy = Array.from({ length: 2 }, () => new Worker('for (;;);', { eval: true }));
  const texts = [await run(false), await run(true), ...(await Promise.all([run(false), run(true)]))];
  await Promise.all(busy.map((worker) => worker.terminate()));
  process.stdout.write(JSON.stringify(texts));
} else process.stdout.write(JSON.stringify([await run(true)]));
