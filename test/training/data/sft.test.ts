/** Tokenising, collating, loss and schedules of supervised fine-tuning, against trl and transformers. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/index.js';
import { AutoTokenizer } from '../../../src/models/auto/index.js';
import type { Tokenizer } from '../../../src/tokenizers/index.js';
import { prepareBatch } from '../../../src/training/batch.js';
import { createStep } from '../../../src/training/create_step.js';
import {
  bucketLengths,
  collate,
  collatePacked,
  DataLoader,
  type Example,
  loadExamples,
  packRows,
  tokenizeExample,
  tokenizeExamples,
} from '../../../src/training/data/index.js';
import { trainableOf } from '../../../src/training/trainable.js';
import { scheduleFactor, type SchedulerType } from '../../../src/training/schedules.js';
import { useBackend } from '../../support/backends.js';
import { expectClose } from '../../support/compare.js';
import { loadGolden } from '../../support/goldens.js';

const golden = loadGolden('sft');
const sets = golden.inputs['sets'] as Record<string, Example[]>;
interface GoldenBatch {
  set: string;
  completion_only_loss: boolean;
  max_length: number;
  input_ids: number[][];
  labels: number[][];
  attention_mask: number[][];
  loss: number;
}
const batches = golden.json['batches'] as GoldenBatch[];
const schedules = golden.json['schedules'] as {
  type: SchedulerType;
  lr: number;
  total_steps: number;
  warmup_steps: number;
  rates: number[];
}[];

describe('supervised fine-tuning data', () => {
  let tokenizer: Tokenizer;
  let model: Mamba2ForCausalLM;
  before(async () => {
    await useBackend('tensorflow');
    tokenizer = await AutoTokenizer.from_pretrained('models/tiny-books-mamba2');
    model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2');
  });
  after(() => model.dispose());

  for (const want of batches) {
    const title = `${want.set}, ${want.completion_only_loss ? 'completion only' : 'all'}, max_length ${want.max_length}`;
    it(`collates and scores as trl: ${title}`, async () => {
      const { max_length, completion_only_loss } = want;
      const examples = await tokenizeExamples(sets[want.set]!, tokenizer, { max_length, completion_only_loss });
      const pad_token_id = tokenizer.pad_token_id!;
      const batch = collate(examples, { pad_token_id });
      expect(batch.input_ids).to.deep.equal(want.input_ids);
      expect(batch.labels).to.deep.equal(want.labels);
      expect(batch.attention_mask).to.deep.equal(want.attention_mask);
      const step = createStep(trainableOf(model), { engine: 'eager' });
      for (const padding_side of ['right', 'left'] as const) {
        const prepared = prepareBatch(collate(examples, { pad_token_id, padding_side }), model.config.vocab_size);
        expectClose([(await step.evaluate(prepared)) / prepared.items], [want.loss], 1e-4, padding_side);
      }
      // packed, at least two in one row: the same positions count, with the same loss
      const sizes = examples.map((e) => e.input_ids.length);
      const length = 2 * Math.max(...sizes);
      const rows = packRows(sizes, length).map((row) => row.map((i) => examples[i]!));
      expect(rows.length).to.be.below(examples.length);
      const packed = prepareBatch(collatePacked(rows, length, pad_token_id), model.config.vocab_size);
      expectClose([(await step.evaluate(packed)) / packed.items], [want.loss], 1e-4, 'packed');
      step.dispose();
    });
  }

  for (const { type, lr, total_steps, warmup_steps, rates } of schedules) {
    it(`schedule ${type} with ${warmup_steps} warm-up steps`, () => {
      expectClose(
        rates.map((_, step) => lr * scheduleFactor(type, step, { warmup_steps, total_steps })),
        rates,
        1e-9,
      );
    });
  }

  it('leaves out examples whose completion was cut off, and names one without text', async () => {
    expect(await tokenizeExample(sets['prompt_completion']![0]!, tokenizer, { max_length: 3 })).to.equal(null);
    let message = '';
    await tokenizeExamples([{ text: 'a b c' }, { body: 'x' }], tokenizer).catch(
      (error: Error) => (message = error.message),
    );
    expect(message).to.match(/Example 1: .*neither 'text'.*it has body.*dataset_text_field/);
  });
});

describe('reading examples', () => {
  let dir: string;
  before(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'data-'))));
  after(() => fs.rmSync(dir, { recursive: true }));
  const write = (name: string, text: string | Uint8Array): string => {
    const file = path.join(dir, name);
    fs.writeFileSync(file, text);
    return file;
  };

  it('reads JSONL with blank lines, a byte order mark and Windows line ends', async () => {
    expect(await loadExamples(write('a.jsonl', '\uFEFF{"text":"a"}\r\n\r\n{"text":"b\\nc"}\n'))).to.deep.equal([
      { text: 'a' },
      { text: 'b\nc' },
    ]);
  });
  it('names the line that is wrong', async () => {
    const fail = async (file: string): Promise<string> =>
      loadExamples(file).then(
        () => 'read',
        (error: Error) => error.message,
      );
    expect(await fail(write('b.jsonl', '{"text":"a"}\n{"text":\n'))).to.match(/b\.jsonl, line 2: not JSON/);
    expect(await fail(write('c.jsonl', '["a"]\n'))).to.match(/line 1: expected a JSON object/);
    expect(await fail(write('c.xml', 'a'))).to.match(/kind '\.xml' is not known/);
    expect(await fail(path.join(dir, 'none.jsonl'))).to.match(/no file/);
  });
  it('reads text by line, paragraph and document', async () => {
    const file = write('d.txt', 'one\ntwo\n\n\nthree\n');
    const texts = async (sample_by: 'line' | 'paragraph' | 'document') =>
      (await loadExamples(file, { sample_by })).map((e) => e['text']);
    expect(await texts('line')).to.deep.equal(['one', 'two', 'three']);
    expect(await texts('paragraph')).to.deep.equal(['one\ntwo', 'three']);
    expect(await texts('document')).to.deep.equal(['one\ntwo\n\n\nthree\n']);
  });
  it('reads parquet of pyarrow, snappy and zstd, over several row groups', async () => {
    for (const codec of ['snappy', 'zstd']) {
      const examples = await loadExamples(`test/fixtures/data/quotes-${codec}.parquet`);
      expect(examples).to.deep.equal(
        Array.from({ length: 7 }, (_, i) => ({
          text: `text ${i} with ü`,
          author: i === 3 ? undefined : `author ${i}`,
        })).map((e) => (e.author ? e : { text: e.text, author: null })),
      );
    }
  });
});

describe('packing and batches', () => {
  const examples = Array.from({ length: 103 }, (_, i) => ({
    input_ids: Array.from({ length: 2 + ((i * 37) % 61) }, (_, j) => (i + j) % 50),
  }));

  it('packs every example once, never beyond the length, and densely', () => {
    const sizes = examples.map((e) => e.input_ids.length);
    const rows = packRows(sizes, 64);
    expect(rows.flat().sort((a, b) => a - b)).to.deep.equal(sizes.map((_, i) => i));
    for (const row of rows) expect(row.reduce((sum, i) => sum + sizes[i]!, 0)).to.be.at.most(64);
    expect(rows.length).to.be.at.most(Math.ceil((sizes.reduce((a, b) => a + b) / 64) * 1.05));
    expect(() => packRows([65], 64)).to.throw(/does not fit/);
  });

  it('gives each example once per epoch in an order of seed and epoch, the same again, and from the middle', async () => {
    const loader = (seed: number, packing = false): DataLoader =>
      new DataLoader(examples, { batch_size: 4, seed, pad_token_id: 0, max_length: 64, packing });
    const all = async (l: DataLoader, epoch: number, skip = 0) => {
      const out = [];
      for await (const batch of l.batches(epoch, skip)) out.push(batch);
      return out;
    };
    for (const packing of [false, true]) {
      const first = await all(loader(1, packing), 0);
      expect(first.length).to.equal(loader(1, packing).size(0));
      const tokens = first.flatMap((b) => b.attention_mask!.flat()).reduce((a, b) => a + b);
      expect(tokens).to.equal(examples.reduce((sum, e) => sum + e.input_ids.length, 0));
      expect(await all(loader(1, packing), 0)).to.deep.equal(first);
      expect(await all(loader(1, packing), 1)).to.not.deep.equal(first);
      expect(await all(loader(2, packing), 0)).to.not.deep.equal(first);
      expect(await all(loader(1, packing), 0, 5)).to.deep.equal(first.slice(5));
    }
    const lengths = new Set((await all(loader(1), 0)).map((b) => b.input_ids[0]!.length));
    for (const n of lengths) expect(bucketLengths(62)).to.include(n);
  });

  it('streams, shuffled within a buffer', async () => {
    const loader = new DataLoader(
      async function* () {
        yield* examples;
      },
      { batch_size: 4, seed: 3, pad_token_id: 0, max_length: 64, shuffle_buffer: 20 },
    );
    const seen: string[] = [];
    for await (const batch of loader.batches(0))
      batch.input_ids.forEach((row, i) =>
        seen.push(
          row
            .slice(
              0,
              batch.attention_mask![i]!.reduce((a, b) => a + b),
            )
            .join(),
        ),
      );
    expect(seen.length).to.equal(103);
    expect([...seen].sort()).to.deep.equal(examples.map((e) => e.input_ids.join()).sort());
    expect(seen).to.not.deep.equal(examples.map((e) => e.input_ids.join()));
    expect(() => loader.size()).to.throw(/max_steps/);
  });
});
