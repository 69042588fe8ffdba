/**
 * Two models in one process (`npm run bench -- sidebyside [--model tiny-books] [--tokens 256] [--rounds 7]`): how long both take to write at once, as a
 * part of the time of one after the other, in turn. On a machine with cores for both, or with a small model, which does not fill them. Each must
 * write what it writes alone.
 */
import { parseArgs } from 'node:util';
import { configureRuntime, selectBackend } from '../src/runtime/index.js';
import type { Mamba2ForCausalLM } from '../src/models/mamba2/causal_lm.js';
import { modelOf } from './first_calls.js';
import { markdownTable, ratios, type Spread, spread } from './statistics.js';

const { values: args } = parseArgs({
  args: process.argv.slice(3),
  options: {
    model: { type: 'string', default: 'tiny-books' },
    tokens: { type: 'string', default: '256' },
    rounds: { type: 'string', default: '7' },
  },
});
const [tokens, rounds] = [Number(args.tokens), Number(args.rounds)];

configureRuntime({ compileCache: true });
await selectBackend('cpu');
const models = [await modelOf(args.model), await modelOf(args.model)];
const prompts = [
  [5, 6, 7],
  [9, 8, 7, 6],
];

async function write(i: number): Promise<string> {
  const model: Mamba2ForCausalLM = models[i]!;
  const input_ids = [prompts[i]!];
  const { sequences } = await model.generate({
    input_ids,
    max_new_tokens: tokens,
    min_new_tokens: tokens,
    return_dict_in_generate: true,
  });
  return sequences.join();
}

const alone = [await write(0), await write(1)];
await Promise.all([write(0), write(1)]);

const [inTurn, atOnce]: [number[], number[]] = [[], []];
for (let round = 0; round < rounds; round++) {
  let began = performance.now();
  await write(0);
  await write(1);
  inTurn.push(performance.now() - began);
  began = performance.now();
  const texts = await Promise.all([write(0), write(1)]);
  atOnce.push(performance.now() - began);
  if (texts.some((text, i) => text !== alone[i])) throw new Error('A model wrote something else beside another.');
}
for (const model of models) model.dispose();
const row = (what: string, { median, min, max }: Spread, digits: number): string[] => {
  return [what, ...[median, min, max].map((value) => value.toFixed(digits))];
};
process.stdout.write(
  `${args.model}, ${tokens} tokens each, ${rounds} rounds\n${markdownTable(
    ['', 'median', 'least', 'most'],
    [
      row('one after the other, ms', spread(inTurn), 0),
      row('both at once, ms', spread(atOnce), 0),
      row('part of the time', ratios(atOnce, inTurn), 2),
    ],
  )}\n`,
);
