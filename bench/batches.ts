/**
 * First and later calls of several batch sizes in one process: what a new size costs, and what it costs the others.
 * `npm run bench -- batches [--model tiny-books] [--rows 1,4,2,1,4,2] [--tokens 8]`
 */
import { parseArgs } from 'node:util';
import { machine } from './machine.js';
import { modelOf, secondsOf } from './first_calls.js';
import { markdownTable } from './statistics.js';

const { values: args } = parseArgs({
  args: process.argv.slice(3),
  options: {
    model: { type: 'string', default: 'tiny-books' },
    rows: { type: 'string', default: '1,4,2,1,4,2' },
    tokens: { type: 'string', default: '8' },
  },
});

let compiled = 0;
const model = await modelOf(args.model, {
  on_compile: (_, phase, ms) => (compiled += Number(phase === 'compile' && ms !== null)),
});
const engine = await model.engine();
const lines: string[][] = [];
for (const rows of args.rows.split(',').map(Number)) {
  const before = compiled;
  const seconds = await secondsOf(engine, rows, Number(args.tokens));
  lines.push([
    String(rows),
    seconds.toFixed(2),
    String(compiled - before),
    (process.memoryUsage.rss() / 1e9).toFixed(2),
  ]);
}
model.dispose();
process.stdout.write(`${JSON.stringify(machine())}\n`);
process.stdout.write(`${markdownTable(['rows, in order', 'seconds', 'functions compiled', 'memory, GB'], lines)}\n`);
