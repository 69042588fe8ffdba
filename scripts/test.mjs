// `npm test`: all tests, in as many processes as there are cores, four at most; `npm run test:long`: those of
// test/**/*.long.ts, which take minutes each, one after another. Arguments go to mocha; files that they name run in one
// process. GOLDENS=FOLDER: with the golden values of that folder (scripts/fixtures/goldens makes such sets).
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { ensureDependencies, ensureRuntime, root, run } from './lib/ready.mjs';

// The longest first, so that no process is left alone with one of them at the end; the others by name.
const LONGEST = [
  'checkpoints/fuzz/fuzz',
  'browser/goldens',
  'browser/training',
  'server/replicas',
  'docs/readme',
  'engine/scheduler/compiled_rows',
  'compiled_engine',
  'engine/compiled/batch_sizes',
  'engine/device_steps',
  'engine/invalid_scores',
  'training/replicas/replicas',
  'docs/transformers_page',
  'generation/goldens',
  'training/step',
  'concurrency',
  'docs/examples',
  'runtime/backend',
  'package/pack',
  'cli/generate',
  'cli/state',
  'books_model',
  'quantized_quality',
  'cli/chat',
  'batch_decoding',
  'quant/matrix',
  'one_tap',
];
const place = (file) => {
  const index = LONGEST.findIndex((name) => file.endsWith(`/${name}.test.ts`));
  return index < 0 ? LONGEST.length : index;
};

ensureDependencies();
if (!ensureRuntime()) {
  process.stderr.write('The tests need TensorFlow; see above for what to do.\n');
  process.exit(1);
}
const rest = process.argv.slice(2);
const long = rest[0] === '--long';
if (long) rest.shift();
const named = rest.some((argument) => argument === '--spec' || argument.endsWith('.ts'));
const files = readdirSync(`${root}/test`, { recursive: true })
  .map((file) => `test/${file.replaceAll('\\', '/')}`)
  .filter((file) => file.endsWith(long ? '.long.ts' : '.test.ts'))
  .sort()
  .sort((a, b) => place(a) - place(b));
const jobs = named || long ? 1 : Math.min(4, availableParallelism());
process.exitCode = run(process.execPath, [
  'node_modules/mocha/bin/mocha.js',
  ...['--reporter', 'scripts/lib/reporter.cjs', '--fail-zero'],
  ...(jobs > 1 ? ['--parallel', '--jobs', String(jobs)] : []),
  ...(long ? ['--timeout', '1800000'] : []),
  ...rest,
  ...(named ? [] : files),
]);
