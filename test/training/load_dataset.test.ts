/** load_dataset(): local files, and data sets of a hub on loopback. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { ArgumentError, CheckpointError } from '../../src/base/errors.js';
import type { HubOptions } from '../../src/checkpoints/index.js';
import { AutoTokenizer } from '../../src/models/auto/index.js';
import { Mamba2Config, Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { Dataset, IterableDataset, load_dataset, type LoadDatasetOptions, SFTTrainer, Trainer } from '../../src/training/index.js'; // prettier-ignore
import { restoreEnvironment } from '../support/environment.js';
import { useBackend } from '../support/backends.js';
import { rejection } from '../support/errors.js';
import { COMMIT_A, COMMIT_B, HubServer } from '../support/hub_server.js';
import { LEARNER } from '../support/tiny_model.js';

const lines = (rows: readonly object[]): Uint8Array =>
  new TextEncoder().encode(rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
const ten = Array.from({ length: 10 }, (_, i) => ({ text: `row ${i}`, n: i }));
const numbers = (rows: Iterable<Readonly<Record<string, unknown>>>): unknown[] => [...rows].map(({ n }) => n);
async function all(rows: AsyncIterable<Readonly<Record<string, unknown>>>): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const { n } of rows) found.push(n);
  return found;
}

describe('load_dataset', () => {
  let root: string;
  beforeEach(() => (root = fs.mkdtempSync(path.join(os.tmpdir(), 'datasets-'))));
  afterEach(() => fs.rmSync(root, { recursive: true, force: true }));

  describe('of local files', () => {
    const file = (name: string, content: Uint8Array | string): string => {
      const place = path.join(root, name);
      fs.mkdirSync(path.dirname(place), { recursive: true });
      fs.writeFileSync(place, content);
      return place;
    };

    it('reads what Python reads: kinds, splits and slices', async () => {
      const data_files = file('ten.jsonl', lines(ten));
      const train = await load_dataset('json', { data_files, split: 'train' });
      expect(train).to.be.instanceOf(Dataset);
      expect([train.length, train.num_rows]).to.deep.equal([10, 10]);
      expect(train.column_names).to.deep.equal(['text', 'n']);
      expect([...train]).to.deep.equal(ten);
      expect(await all(train)).to.deep.equal(numbers(ten));
      // each as Python's datasets has it
      for (const [split, expected] of [
        ['train[:3]', [0, 1, 2]],
        ['train[8:]', [8, 9]],
        ['train[-2:]', [8, 9]],
        ['train[2:-6]', [2, 3]],
        ['train[10%:30%]', [1, 2]],
        ['train[:25%]', [0, 1]],
        ['train[:35%]', [0, 1, 2, 3]],
        ['train[-20%:]', [8, 9]],
        ['train[:2]+train[9:]', [0, 1, 9]],
        ['train[5:2]', []],
        ['train[:100]', numbers(ten)],
      ] as const)
        expect(numbers(await load_dataset('json', { data_files, split })), split).to.deep.equal(expected);
      const dict = await load_dataset('json', { data_files: { train: data_files, test: [data_files, data_files] } });
      expect(Object.entries(dict).map(([name, { length }]) => [name, length])).to.deep.equal([
        ['train', 10],
        ['test', 20],
      ]);
      const stream = await load_dataset('json', { data_files, split: 'train[3:5]', streaming: true });
      expect(stream).to.be.instanceOf(IterableDataset);
      expect(await all(stream)).to.deep.equal([3, 4]);
      expect(await all(stream)).to.deep.equal([3, 4]);
    });

    it('reads text, parquet, lists within objects, files and folders by name', async () => {
      const text = file('a.txt', 'one\ntwo\n\nthree\n');
      expect((await load_dataset('text', { data_files: [text], split: 'train' })).column('text')).to.deep.equal(['one', 'two', 'three']); // prettier-ignore
      expect(
        (await load_dataset('text', { data_files: text, split: 'train', sample_by: 'paragraph' })).length,
      ).to.equal(2);
      const parquet = await load_dataset('parquet', { data_files: 'test/fixtures/data/quotes-zstd.parquet', split: 'train' }); // prettier-ignore
      expect(parquet.length).to.be.greaterThan(0);
      const inside = file('in.json', JSON.stringify({ version: 1, data: ten }));
      expect((await load_dataset('json', { data_files: inside, field: 'data', split: 'train' })).length).to.equal(10);
      file('folder/train.jsonl', lines(ten));
      file('folder/test/part.jsonl', lines(ten.slice(0, 2)));
      file('folder/README.md', '# ten');
      file('folder/dataset_infos.json', '{}');
      const folder = await load_dataset(path.join(root, 'folder'));
      expect([folder['train']!.length, folder['test']!.length, Object.keys(folder).length]).to.deep.equal([10, 2, 2]);
      expect((await load_dataset(path.join(root, 'folder', 'train.jsonl'), { split: 'train' })).length).to.equal(10);
    });

    it('says what is there where something is not', async () => {
      const data_files = file('ten.jsonl', lines(ten));
      for (const [dataset, options, message] of [
        ['json', { data_files, split: 'trian' }, /no split "trian"; it has "train"/],
        ['json', { data_files, split: 'train[:x]' }, /split is "train\[:x\]"; expected/],
        ['json', { data_files, split: 'train[:200%]' }, /split is "train\[:200%\]"/],
        ['json', { data_files, split: 'train[:10%]', streaming: true }, /streaming is true/],
        ['json', { data_file: data_files }, /no option data_file\. Did you mean data_files\?/],
        ['json', {}, /needs data_files/],
        ['json', { data_files: `${root}/*.jsonl` }, /has the pattern/],
        ['json', { data_files: [] }, /data_files is \[\]; expected a file/],
        ['json', { data_files: path.join(root, 'none.jsonl'), split: 'train' }, /There is no file/],
        ['json', { data_files, field: 'x', split: 'train', num_proc: 4 }, /num_proc: 4, which is not supported/],
        ['json', { data_files: file('o.json', '{"a": 1}'), field: 'b', split: 'train' }, /has no "b"; it has "a"/],
        ['arrow', { data_files: 'x.arrow' }, /arrow is not read; convert it/],
        ['csv', { data_files: file('x.bin', 'a'), column_names: ['b'] }, /column_names/],
        ['x y', {}, /There is no folder "x y"/],
        [root, { split: 'train', data_dir: 'nowhere' }, /There is no folder/],
        [7, {}, /load_dataset\(\) got 7/],
        ['json', 'train', /got "train" where its options belong/],
      ] as const) {
        const error = await rejection(load_dataset(dataset as string, options as object));
        expect(error, `${dataset} ${JSON.stringify(options)}`).to.be.instanceOf(ArgumentError);
        expect(error.message).to.match(message);
      }
    });

    it('has the methods of a Dataset', async () => {
      const dataset = new Dataset(ten);
      expect(dataset.at(-1)).to.deep.equal(ten[9]);
      expect(numbers(dataset.select([3, 1]))).to.deep.equal([3, 1]);
      expect(dataset.map(({ n }) => ({ double: 2 * (n as number) })).at(4)).to.deep.equal({ ...ten[4], double: 8 });
      expect(numbers(dataset.filter(({ n }) => (n as number) > 7))).to.deep.equal([8, 9]);
      const mixed = numbers(dataset.shuffle({ seed: 1 }));
      expect(mixed).to.have.members(numbers(ten)).and.not.deep.equal(numbers(ten));
      expect(numbers(dataset.shuffle({ seed: 1 }))).to.deep.equal(mixed);
      const { train, test } = dataset.train_test_split({ test_size: 0.2 });
      expect([...numbers(train), ...numbers(test)]).to.have.members(numbers(ten));
      expect([train.length, test.length]).to.deep.equal([8, 2]);
      expect(dataset.remove_columns('n').column_names).to.deep.equal(['text']);
      expect(dataset.rename_column('text', 'quote').column_names).to.deep.equal(['quote', 'n']);
      for (const [call, message] of [
        [() => dataset.select_columns('txt'), /no column "txt"; it has "text", "n"/],
        [() => dataset.at(10), /has 10 rows/],
        [() => dataset.map((() => 3) as never), /gave 3 for row 0/],
        [() => dataset.filter((async () => true) as never), /gave a promise/],
        [() => dataset.shuffle({ sede: 1 } as never), /Did you mean seed/],
        [() => dataset.train_test_split({ test_size: 10 }), /some must be left/],
        [() => dataset.take(-1), /take\(\) got -1/],
        [() => new Dataset([1] as never), /row 0 is 1/],
      ] as const)
        expect(call).to.throw(ArgumentError, message);
      const stream = new IterableDataset(() => dataset[Symbol.asyncIterator]());
      expect(await all(stream.filter(({ n }) => (n as number) % 2 === 0).map(({ n }) => ({ n: -(n as number) })).skip(1).take(2))).to.deep.equal([-2, -4]); // prettier-ignore
    });

    it('goes into trainers as it is', async () => {
      await useBackend('tensorflow');
      const model = new Mamba2ForCausalLM(new Mamba2Config({ ...LEARNER, vocab_size: 4096 }));
      const tokenizer = await AutoTokenizer.from_pretrained('models/tiny-books-mamba2');
      const train_dataset = new Dataset(ten);
      const args = { output_dir: path.join(root, 'out'), engine: 'eager', max_steps: 2, save_strategy: 'no' } as const;
      const sft = new SFTTrainer({ model, tokenizer, args, train_dataset, eval_dataset: train_dataset });
      expect((await sft.train()).global_step).to.equal(2);
      const { eval_loss } = await sft.evaluate();
      expect((await sft.evaluate(train_dataset)).eval_loss).to.equal(eval_loss);
      const stream = new IterableDataset(() => train_dataset[Symbol.asyncIterator]());
      const streamed = new SFTTrainer({ model, tokenizer, args, train_dataset: stream });
      expect((await streamed.train()).global_step).to.equal(2);
      const ids = new Dataset([{ input_ids: [1, 2, 3] }, { input_ids: [4, 5] }]);
      const trainer = new Trainer({ model, args, train_dataset: ids });
      expect((await trainer.train()).global_step).to.equal(2);
      const wrong = new Trainer({ model, args, train_dataset });
      expect((await rejection(wrong.train())).message).to.match(
        /Example 0 has no list input_ids; it has text, n\. SFTTrainer/,
      );
      const asked = new SFTTrainer({ model, tokenizer, args, train_dataset, dataset_text_field: 'quote' });
      expect((await rejection(asked.train())).message).to.match(
        /neither 'quote' .* it has text, n\. Set dataset_text_field/,
      );
      for (const each of [sft, streamed, trainer, wrong, asked, model]) each.dispose();
    });
  });

  describe('of the hub', () => {
    let hub: HubServer;
    let base: HubOptions;
    let saved: NodeJS.ProcessEnv;
    const others: HubServer[] = [];
    const parquet = new Uint8Array(fs.readFileSync('test/fixtures/data/quotes-zstd.parquet'));
    beforeEach(async () => {
      saved = { ...process.env };
      for (const key of Object.keys(process.env)) if (/^(HF_|HUGGING|TRANSFORMERS_)/.test(key)) delete process.env[key];
      process.env['HF_HOME'] = path.join(root, 'home');
      hub = new HubServer();
      base = { cache_dir: path.join(root, 'cache'), endpoint: await hub.start(), retry_delay: 1 };
      hub.refs = { main: COMMIT_A, 'refs/convert/parquet': COMMIT_B };
      hub.at[COMMIT_A] = {
        'README.md': lines([]),
        'quotes.jsonl': lines(ten),
        'other/test.jsonl': lines(ten.slice(5)),
      };
      hub.at[COMMIT_B] = { 'default/train/0000.parquet': parquet, 'default/train/0001.parquet': parquet };
    });
    afterEach(async () => {
      for (const server of [hub, ...others.splice(0)]) await server.stop();
      restoreEnvironment(saved);
    });
    const load = (options: LoadDatasetOptions & { split: string; streaming?: false }): Promise<Dataset> =>
      load_dataset('org/model', { ...base, ...options });

    it('reads the parquet that the hub makes of it, into the cache that Python shares', async () => {
      const one = await load_dataset('parquet', {
        data_files: 'test/fixtures/data/quotes-zstd.parquet',
        split: 'train',
      });
      const seen: { written: number; total: number }[] = [];
      const dataset = await load({
        split: 'train',
        on_progress: ({ written, total }) => seen.push({ written, total }),
      });
      expect([...dataset]).to.deep.equal([...one, ...one]);
      expect(seen.at(-1)).to.deep.equal({ written: 2 * parquet.length, total: 2 * parquet.length });
      const folder = path.join(root, 'cache', 'datasets--org--model');
      expect(fs.readFileSync(path.join(folder, 'refs', 'refs', 'convert', 'parquet'), 'utf8')).to.equal(COMMIT_B);
      expect(fs.existsSync(path.join(folder, 'snapshots', COMMIT_B, 'default', 'train', '0000.parquet'))).to.equal(
        true,
      );
      // a second time nothing is fetched, and offline nothing is asked
      const before = hub.downloads('0000.parquet').length;
      await load({ split: 'train' });
      expect(hub.downloads('0000.parquet')).to.have.length(before);
      const asked = hub.seen.length;
      expect((await load({ split: 'train', local_files_only: true })).length).to.equal(dataset.length);
      expect(hub.seen).to.have.length(asked);
      await hub.stop();
      const warnings: string[] = [];
      expect((await load({ split: 'train', on_warning: (m) => warnings.push(m) })).length).to.equal(dataset.length);
      expect(warnings.join()).to.match(/cannot be reached .* as last seen/);
      await hub.start();
    });

    it('fetches a file when its rows are asked for', async () => {
      const stream = await load_dataset('org/model', { ...base, split: 'train', streaming: true });
      for await (const row of stream) {
        expect(Object.keys(row).length).to.be.greaterThan(0);
        break;
      }
      expect(hub.downloads('0000.parquet')).to.have.length(1);
      expect(hub.downloads('0001.parquet')).to.have.length(0);
      expect((await load({ split: 'train[:1]' })).length).to.equal(1);
      expect(hub.downloads('0001.parquet')).to.have.length(0);
    });

    it('shows the token to the hub alone', async () => {
      hub.token = 'secret';
      hub.largeFrom = 10;
      const cdn = new HubServer();
      hub.cdn = await cdn.start();
      others.push(cdn);
      cdn.at[''] = hub.at[COMMIT_B]!;
      cdn.files = hub.at[COMMIT_B]!;
      expect((await load({ split: 'train', token: 'secret' })).length).to.be.greaterThan(0);
      expect(hub.seen.every(({ authorization }) => authorization === 'Bearer secret')).to.equal(true);
      // both shards are one blob
      expect(cdn.seen).to.have.length(1);
      expect(cdn.seen.some(({ authorization }) => authorization !== undefined)).to.equal(false);
      const error = await rejection(
        load_dataset('org/model', { ...base, cache_dir: path.join(root, 'other'), split: 'train' }),
      );
      expect(error).to.be.instanceOf(CheckpointError);
      expect(error.message).to.match(/access is denied/);
    });

    it("reads a data set's own files where a revision or files are named, or nothing was converted", async () => {
      expect((await load({ split: 'test', revision: 'main' })).length).to.equal(5);
      expect(numbers(await load({ split: 'train', data_files: 'quotes.jsonl' }))).to.deep.equal(numbers(ten));
      expect((await load({ split: 'test', data_dir: 'other' })).length).to.equal(5);
      delete hub.refs['refs/convert/parquet'];
      hub.at[COMMIT_A] = { 'data/train-00000-of-00001.parquet': parquet, 'data/extra-00000-of-00001.parquet': parquet };
      const fresh = { cache_dir: path.join(root, 'fresh') };
      expect(Object.keys(await load_dataset('org/model', { ...base, ...fresh }))).to.have.members(['train', 'extra']);
      expect((await load({ ...fresh, split: 'extra', local_files_only: true })).length).to.be.greaterThan(0);
    });

    it('says what is there: configurations, splits, files, revisions', async () => {
      hub.at[COMMIT_B] = { 'one/train/0000.parquet': parquet, 'two/partial-validation/0000.parquet': parquet };
      const warnings: string[] = [];
      for (const [options, Failure, message] of [
        [{ split: 'train' }, ArgumentError, /name says which configuration; there are "one", "two"/],
        [{ split: 'train', name: 'three' }, ArgumentError, /no configuration "three"; there are "one", "two"/],
        [{ split: 'train', name: 'two' }, ArgumentError, /no split "train"; it has "validation"/],
        [{ split: 'train', data_files: 'none.jsonl' }, ArgumentError, /no file "none.jsonl"; it has .*"quotes.jsonl"/],
        [{ split: 'train', revision: 'nowhere' }, CheckpointError, /is not there\. Check its name and revision/],
        [{ split: 'train', revision: '../x' }, ArgumentError, /not a relative path/],
        [{ split: 'train', cache_dir: path.join(root, 'none'), local_files_only: true }, CheckpointError, /network was not asked/], // prettier-ignore
      ] as const) {
        const error = await rejection(load({ ...options, on_warning: (m) => warnings.push(m) }));
        expect(error, JSON.stringify(options)).to.be.instanceOf(Failure);
        expect(error.message).to.match(message);
      }
      expect((await load({ split: 'train', name: 'one' })).length).to.be.greaterThan(0);
      expect(warnings.join()).to.match(/only the beginning/);
      const nothing = await rejection(load_dataset('org/other', { ...base, split: 'train' }));
      expect(nothing.message).to.match(/is not there/);
      hub.wrong['one/train/0000.parquet'] = lines(ten);
      const damaged = await rejection(load({ split: 'train', name: 'one', cache_dir: path.join(root, 'again') }));
      expect(damaged).to.be.instanceOf(CheckpointError);
    });
  });
});
