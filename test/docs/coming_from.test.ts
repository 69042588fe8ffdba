/** docs/coming_from.md: every row of its tables runs and gives what it says. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import * as library from '../../src/index.js';
import * as layers from '../../src/layers.js';

const AsyncFunction = (async () => {}).constructor as new (
  ...args: string[]
) => (...args: unknown[]) => Promise<unknown>;

/** A value's kind, as the third column says it. */
function kindOf(value: unknown): string {
  if (value instanceof tf.Tensor) return `Tensor [${(value.shape as number[]).join(', ')}]`;
  if (Array.isArray(value)) return `${value.length ? kindOf(value[0]) : 'unknown'}[]`;
  if (value instanceof library.Tokenizer) return 'Tokenizer'; // a function, too
  if (typeof value !== 'object' || value === null) return typeof value;
  const { name } = value.constructor;
  return name === 'Object' ? 'object' : name;
}

interface Row {
  readonly section: string;
  readonly there: string;
  readonly here: string;
  readonly gives: string;
}

function rows(): Row[] {
  const text = fs.readFileSync('docs/coming_from.md', 'utf8');
  return text
    .split(/^## /m)
    .slice(1)
    .flatMap((section) => {
      const [title] = section.split('\n');
      const lines = section.split('\n').filter((line) => /^\| (?!there)/.test(line));
      return lines.map((line) => {
        const [, there, here, gives] = line.split(/ ?(?<!\\)\| ?/).map((cell) => cell.trim());
        return { section: title!, there: there!, here: here!.replace(/^`|`$/g, ''), gives: gives! };
      });
    });
}

describe('docs/coming_from.md', function () {
  this.timeout(120_000);
  let dir: string;
  let model: library.Mamba2ForCausalLM;
  let tokenizer: library.Tokenizer;
  before(async () => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'coming-from-'));
    await library.selectBackend('cpu');
  });
  beforeEach(async () => {
    model = await library.Mamba2ForCausalLM.from_pretrained('tiny-books-mamba2', { engine: 'eager' });
    tokenizer = await library.AutoTokenizer.from_pretrained('tiny-books-mamba2');
  });
  afterEach(() => model.dispose());
  after(() => fs.rmSync(dir, { recursive: true, force: true }));

  for (const { section, there, here, gives } of rows())
    it(`${section}: ${there}`, async () => {
      const scope: Record<string, unknown> = { ...library, ...layers, tf, model, tokenizer, dir, ids: [[1, 2, 3]] };
      const run = new AsyncFunction(...Object.keys(scope), `return (${here});`);
      const result = await run(...Object.values(scope)).catch((error: unknown) => error);
      if (result instanceof Error && kindOf(result) !== gives) throw result;
      expect(kindOf(result)).to.equal(gives);
    });

  it('has tables for transformers, transformers.js and Keras', () => {
    expect(rows().length).to.be.greaterThan(40);
    expect(new Set(rows().map(({ section }) => section)).size).to.equal(3);
  });
});
