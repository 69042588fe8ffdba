// `npm test`: all tests; `npm run test:long`: those of test/**/*.long.ts, which take minutes each. Arguments go to mocha.
import { ensureDependencies, ensureRuntime, run } from './lib/ready.mjs';

ensureDependencies();
if (!ensureRuntime()) {
  process.stderr.write('The tests need TensorFlow; see above for what to do.\n');
  process.exit(1);
}
const rest = process.argv.slice(2);
const long = rest[0] === '--long';
if (long) rest.shift();
const named = rest.some((argument) => argument === '--spec' || argument.endsWith('.ts'));
const specs = named ? [] : ['--spec', long ? 'test/**/*.long.ts' : 'test/**/*.test.ts'];
const limits = long ? ['--timeout', '1800000'] : [];
process.exitCode = run(process.execPath, [
  'node_modules/mocha/bin/mocha.js',
  ...['--reporter', 'scripts/lib/reporter.cjs', '--fail-zero'],
  ...specs,
  ...limits,
  ...rest,
]);
