/** A model's files in a page: by ranges, kept, resumed, without ranges, chosen, and what goes wrong on the way. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import type { Page } from 'playwright-core';
import { buildWeb } from '../../scripts/build_web.mjs';
import { inChromium, openPage, serve, type ServerOptions, type TestServer } from '../support/pages.js';
import type * as Whole from '../../src/whole.js';

type Package = typeof Whole;
declare const m: Package;

const TEXT = 'Once upon a time of year, and a little girl,';
const MODEL = '/models/tiny-books-mamba2/';
const WEIGHTS = `${MODEL}model.safetensors`;

inChromium('files of a model in a page', [], (browser) => {
  let root: string;
  let server: TestServer | undefined;
  let page: Page | undefined;
  before(async () => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-http-'));
    await buildWeb(root);
  });
  after(() => fs.rmSync(root, { recursive: true, force: true }));
  afterEach(async () => {
    await page?.close();
    await server?.close();
    [page, server] = [undefined, undefined];
  });

  /** A page with the package in it, called m. */
  async function open(options: Partial<ServerOptions> = {}): Promise<Page> {
    const folders = { web: root, models: 'models', fixtures: 'test/fixtures' };
    server ??= await serve({ ...options, folders, pages: { '/': '<!doctype html><input type="file" multiple>' } });
    page = await openPage(browser(), server.url);
    await page.evaluate(
      `import('/web/tfjs-mamba2.min.js').then((m) => { globalThis.m = m; return m.clearDownloads(); })`,
    );
    return page;
  }
  const again = async (): Promise<Page> => {
    await page!.reload();
    await page!.evaluate(`import('/web/tfjs-mamba2.min.js').then((m) => { globalThis.m = m; })`);
    return page!;
  };

  /** Writes eight tokens with the model of a folder; an error is given back as text. */
  const write = (from: Page, name: string): Promise<string> =>
    from.evaluate(async (model) => {
      try {
        const generate = await m.pipeline('text-generation', model, { device: 'wasm' });
        const [out] = await generate('Once upon a time', { max_new_tokens: 8, do_sample: false });
        generate.dispose();
        return out!.generated_text;
      } catch (error) {
        return `${(error as Error).name}: ${(error as Error).message}`;
      }
    }, name);

  const ofWeights = (): string[] => server!.requests.filter((each) => each.includes('model.safetensors'));

  it('come by ranges, each once, and no more at the second visit, which needs no network', async () => {
    expect(await write(await open(), MODEL)).to.equal(TEXT);
    const size = fs.statSync('models/tiny-books-mamba2/model.safetensors').size;
    const block = 4 * 2 ** 20;
    const ranges = Array.from({ length: Math.ceil(size / block) }, (_, i) => [i * block, Math.min(size, (i + 1) * block) - 1]); // prettier-ignore
    const asked = ofWeights().map((each) =>
      each
        .replace(/^.*bytes=/, '')
        .split('-')
        .map(Number),
    );
    expect(asked[0]).to.deep.equal([0, block - 1]);
    expect(asked).to.deep.equal(ranges);
    server!.requests.length = 0;
    expect(await write(await again(), MODEL)).to.equal(TEXT);
    expect(server!.requests.filter((each) => /^GET .*bytes=/.test(each) && !/404/.test(each))).to.satisfy(
      (all: string[]) => all.every((each) => /special_tokens|chat_template|generation_config|params/.test(each)),
    );
    expect(ofWeights()).to.deep.equal([`HEAD ${WEIGHTS}`]);
    await again();
    await page!.context().setOffline(true);
    // wasm binaries are the page's own: they are there already
    const offline = await page!.evaluate(async (model) => {
      const model_ = await m.AutoModelForCausalLM.from_pretrained(model, { device: 'js' });
      await m.AutoTokenizer.from_pretrained(model); // whose folder lacks some files
      const [ids] = await model_.generate({ input_ids: [[5, 6, 7]], max_new_tokens: 3 });
      return ids!.length;
    }, MODEL);
    expect(offline).to.equal(6);
  });

  it('go on where they broke off', async () => {
    let failing = true;
    await open({
      trouble: ({ url, headers }) => failing && url === WEIGHTS && headers.range!.startsWith('bytes=8388608'),
    });
    const error = await write(page!, MODEL);
    expect(error).to.match(/^CheckpointError: .*bytes from 8388608 cannot be fetched .*load again to go on from there/);
    failing = false;
    server!.requests.length = 0;
    expect(await write(await again(), MODEL)).to.equal(TEXT);
    expect(ofWeights()).to.deep.equal([`HEAD ${WEIGHTS}`, `GET ${WEIGHTS} bytes=8388608-9552063`]);
  });

  it('come whole from a server without ranges, once', async () => {
    expect(await write(await open({ ranges: false }), MODEL)).to.equal(TEXT);
    expect(ofWeights()).to.have.length(1);
    server!.requests.length = 0;
    expect(await write(await again(), MODEL)).to.equal(TEXT);
    expect(ofWeights()).to.deep.equal([`HEAD ${WEIGHTS}`]);
  });

  it('that come whole are told of as they come, and not again', async () => {
    await open({ ranges: false });
    const told = await page!.evaluate(async (model) => {
      const all: { file: string; written: number; total: number }[] = [];
      const lm = await m.AutoModelForCausalLM.from_pretrained(model, { on_progress: (each) => all.push(each) });
      await lm.generate({ input_ids: [[5, 6]], max_new_tokens: 1 });
      return all.filter(({ file }) => file === 'model.safetensors').map(({ written }) => written);
    }, MODEL);
    const size = fs.statSync('models/tiny-books-mamba2/model.safetensors').size;
    expect(told.at(-1)).to.equal(size);
    expect(told).to.deep.equal([...new Set(told)].sort((a, b) => a - b));
  });

  it('are fetched anew when the server has others, and never mixed', async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-changed-'));
    fs.cpSync('models/tiny-books-mamba2', dir, { recursive: true });
    server = await serve({ folders: { web: root, models: path.dirname(dir) }, pages: { '/': '<!doctype html>' } });
    const name = `/models/${path.basename(dir)}/`;
    expect(await write(await open(), name)).to.equal(TEXT);
    const file = path.join(dir, 'model.safetensors');
    const bytes = fs.readFileSync(file);
    bytes.fill(0, bytes.length - 4 * 256);
    fs.writeFileSync(file, bytes);
    fs.utimesSync(file, new Date(), new Date(Date.now() + 5000));
    server.requests.length = 0;
    await write(await again(), name);
    expect(ofWeights().filter((each) => each.startsWith('GET'))).to.have.length(3);
    fs.rmSync(dir, { recursive: true });
  });

  for (const ranges of [true, false])
    it(`work without a cache, and tell of it where there is no room (ranges: ${ranges})`, async () => {
      await open({ ranges });
      const told = await page!.evaluate(async (model) => {
        const warnings: string[] = [];
        Object.defineProperty(Cache.prototype, 'put', { value: () => Promise.reject(new DOMException('full', 'QuotaExceededError')) }); // prettier-ignore
        Object.defineProperty(FileSystemFileHandle.prototype, 'createWritable', { value: () => Promise.reject(new DOMException('full', 'QuotaExceededError')) }); // prettier-ignore
        const lm = await m.AutoModelForCausalLM.from_pretrained(model, { on_warning: (line) => warnings.push(line) });
        const [ids] = await lm.generate({ input_ids: [[5, 6, 7]], max_new_tokens: 2 });
        return { warnings, count: ids!.length };
      }, MODEL);
      expect(told.count).to.equal(5);
      expect(told.warnings.filter((line) => line.includes('model.safetensors'))).to.have.length(1);
      expect(told.warnings.join()).to.match(/no room to keep .*next visit will fetch it again/);
    });

  it('may be in shards, with progress as transformers.js tells it', async () => {
    await open();
    const events = await page!.evaluate(async () => {
      const all: Whole.DownloadProgress[] = [];
      const lm = await m.AutoModelForCausalLM.from_pretrained('/fixtures/goldens/formats/sharded/', {
        progress_callback: (event) => all.push(event),
      });
      await lm.generate({ input_ids: [[5, 6]], max_new_tokens: 1 });
      return all;
    });
    const shards = [...new Set(events.map(({ file }) => file).filter((file) => /safetensors$/.test(file)))];
    expect(shards.length).to.be.greaterThan(1);
    for (const shard of shards) {
      const own = events.filter(({ file }) => file === shard);
      expect(own.map(({ status }) => status)).to.deep.equal(['initiate', 'download', 'progress', 'done']);
      expect(own[2]).to.include({ name: '/fixtures/goldens/formats/sharded/', progress: 100 });
      expect(own[2]!.loaded).to.equal(own[2]!.total);
    }
  });

  it('may be chosen by a person', async () => {
    await open();
    const files = fs
      .readdirSync('models/tiny-books-mamba2')
      .map((name) => path.resolve('models/tiny-books-mamba2', name));
    await page!.setInputFiles('input', files);
    server!.requests.length = 0;
    const text = await page!.evaluate(async () => {
      const name = m.folderOfFiles(document.querySelector('input')!.files!);
      const generate = await m.pipeline('text-generation', name, { device: 'js' });
      const [out] = await generate('Once upon a time', { max_new_tokens: 8, do_sample: false });
      return out!.generated_text;
    });
    expect(text).to.equal(TEXT);
    expect(server!.requests).to.deep.equal([]);
  });

  it('that are not there, or refused, are errors that say so', async () => {
    await open({ trouble: ({ url }) => (url!.includes('config.json') ? 403 : false) });
    expect(await write(page!, '/models/none/')).to.match(/Error: .*tokenizer\.json/);
    const refused = await page!.evaluate(
      (model) => m.AutoModelForCausalLM.from_pretrained(model).then(() => '', String),
      MODEL,
    );
    expect(refused).to.match(/CheckpointError: .*config\.json.*403/);
  });

  it('and states, which a page keeps and Node.js has as well', async () => {
    await open();
    const text = await page!.evaluate(async (model) => {
      const lm = await m.AutoModelForCausalLM.from_pretrained(model);
      const state = await lm.prefill('Once upon a time');
      await state.save('opfs:/once.safetensors', { from: 'a page' });
      return [...(await lm.generate({ input_ids: [[]], state, max_new_tokens: 6 })).flat()];
    }, MODEL);
    await again();
    const { ids, bytes } = await page!.evaluate(async (model) => {
      const lm = await m.AutoModelForCausalLM.from_pretrained(model);
      const state = await m.Mamba2State.load(lm, 'opfs:/once.safetensors');
      const handle = await (await navigator.storage.getDirectory()).getFileHandle('once.safetensors');
      return {
        ids: (await lm.generate({ input_ids: [[]], state, max_new_tokens: 6 })).flat(),
        bytes: [...new Uint8Array(await (await handle.getFile()).arrayBuffer())],
      };
    }, MODEL);
    expect(ids).to.deep.equal(text);
    const file = path.join(root, 'once.safetensors');
    fs.writeFileSync(file, Uint8Array.from(bytes));
    const { AutoModelForCausalLM, Mamba2State } = await import('../../src/index.js');
    const lm = await AutoModelForCausalLM.from_pretrained('models/tiny-books-mamba2', { device: 'wasm' });
    const state = await Mamba2State.load(lm, file);
    expect((await lm.generate({ input_ids: [[]], state, max_new_tokens: 6 })).flat()).to.deep.equal(text);
    lm.dispose();
  });
});
