/**
 * Sampling beside greedy decoding: the first call of each kind, which compiles, and later ones in turn.
 * `npm run bench -- sampling [--model tiny-books] [--tokens 200] [--rounds 5] [--rows 1] [--kinds greedy,top_p,…]`
 */
import { parseArgs } from 'node:util';
import { machine, otherLoad } from './machine.js';
import { type CallOptions, modelOf, secondsOf } from './first_calls.js';
import { markdownTable, ratios, spread } from './statistics.js';

const { values: args } = parseArgs({
  args: process.argv.slice(3),
  options: {
    model: { type: 'string', default: 'tiny-books' },
    tokens: { type: 'string', default: '200' },
    rounds: { type: 'string', default: '5' },
    rows: { type: 'string', default: '1' },
    kinds: { type: 'string' },
  },
});

/** top_k is 50 where nothing is said, as in transformers. */
const KINDS: Record<string, CallOptions> = {
  greedy: {},
  temperature: { temperature: 0.8, top_k: 0 },
  top_p: { top_p: 0.9, top_k: 0 },
  'top_p, other': { top_p: 0.7, top_k: 0 },
  min_p: { min_p: 0.05, top_k: 0 },
  'top_k 40': { top_k: 40 },
  'top_k 1000': { top_k: 1000 },
  'top_k, top_p': { top_k: 40, top_p: 0.9 },
  typical_p: { typical_p: 0.9, top_k: 0 },
  epsilon: { epsilon_cutoff: 3e-4, top_k: 0 },
  eta: { eta_cutoff: 3e-4, top_k: 0 },
  top_h: { top_h: 0.4, top_k: 0 },
};

const kinds = args.kinds?.split(';') ?? Object.keys(KINDS);
const [tokens, rows] = [Number(args.tokens), Number(args.rows)];
const model = await modelOf(args.model);
const engine = await model.engine();
const run = (kind: string): Promise<number> =>
  secondsOf(engine, rows, tokens, kind === 'greedy' ? {} : { do_sample: true, seed: 7, ...KINDS[kind] });
await secondsOf(engine, rows, 1); // the prompt's program belongs to none of them
const first: number[] = [];
for (const kind of kinds) first.push(await run(kind));
const later = kinds.map((): number[] => []);
for (let k = 0; k < Number(args.rounds); k++) for (const [i, kind] of kinds.entries()) later[i]!.push(await run(kind));
model.dispose();
const greedy = later[kinds.indexOf('greedy')];
process.stdout.write(`${JSON.stringify({ ...machine(), otherLoad: await otherLoad() })}\n`);
const lines = kinds.map((kind, i) => {
  const { median, min, max } = spread(later[i]!);
  const ratio = greedy ? ratios(later[i]!, greedy).median.toFixed(2) : '';
  return [kind, first[i]!.toFixed(2), `${median.toFixed(3)} (${min.toFixed(3)}–${max.toFixed(3)})`, ratio];
});
process.stdout.write(
  `${markdownTable([`${args.model}, ${rows} × ${tokens} tokens`, 'first call, s', 'later, s', 'times greedy'], lines)}\n`,
);
