/** The package in a worker, as a page asks for it. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { build } from 'esbuild';
import type { Page } from 'playwright-core';
import { buildWeb } from '../../scripts/build_web.mjs';
import { inChromium, openPage, serve, type TestServer } from '../support/pages.js';
import type * as Entry from '../../src/worker.js';

declare const w: typeof Entry;

const MODEL = '/models/tiny-books-mamba2/';

inChromium('a worker', [], (browser) => {
  let root: string;
  let server: TestServer;
  let page: Page;
  before(async () => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-worker-'));
    await buildWeb(root);
    await build({ entryPoints: [path.join(root, 'worker.js')], outfile: path.join(root, 'page.js'), bundle: true, format: 'esm', logLevel: 'error', nodePaths: ['node_modules'] }); // prettier-ignore
    server = await serve({ folders: { web: root, models: 'models' }, pages: { '/': '<!doctype html>' } });
    page = await openPage(browser(), server.url);
    await page.evaluate(`import('/web/page.js').then((w) => { globalThis.w = w; })`);
  });
  after(async () => {
    await page.close();
    await server.close();
    fs.rmSync(root, { recursive: true, force: true });
  });

  it('writes what Node.js writes, and the page is never held up', async () => {
    const round = () =>
      page.evaluate(async (model) => {
        const durations: number[] = [];
        const observer = new PerformanceObserver((list) => durations.push(...list.getEntries().map((each) => each.duration))); // prettier-ignore
        observer.observe({ type: 'longtask' });
        const seen: string[] = [];
        const write = await w.pipeline('text-generation', model, {
          progress_callback: ({ status }) => seen.push(status),
        });
        const [out] = await write('Once upon a time', { max_new_tokens: 40, do_sample: false });
        await write.dispose();
        observer.disconnect();
        return { text: out!.generated_text, longest: Math.max(0, ...durations), pieces: seen };
      }, MODEL);
    const { text, pieces, ...first } = await round();
    // a page that waits for its turn among the machine's other programs is held up, but not by us
    let { longest } = first;
    for (let more = 0; more < 3 && longest >= 50; more++) longest = Math.min(longest, (await round()).longest);
    expect(text).to.match(/^Once upon a time of year, and a little girl, who was a very good-natured man/);
    expect(longest).to.be.below(50);
    expect(pieces).to.include.members(['initiate', 'progress', 'done']);
  });

  it('streams, keeps states, and stops at a signal', async () => {
    const out = await page.evaluate(async (model) => {
      const lm = await w.AutoModelForCausalLM.from_pretrained(model);
      const tokenizer = await w.AutoTokenizer.from_pretrained(model);
      const remote = w.startWorker();
      remote.terminate();
      const encoded = await tokenizer.encode('Once upon a time');
      const state = await lm.prefill('Once upon a time');
      const fork = await state.clone();
      const seen = await state.seen;
      const put: number[] = [];
      const streamer = { put: (ids: number[][]) => void put.push(...ids.flat()), end: () => undefined };
      const [ids] = await lm.generate({ input_ids: [[]], state, max_new_tokens: 4, do_sample: false, streamer });
      await fork.save('opfs:/fork.safetensors');
      const again = await w.Mamba2State.load(lm, 'opfs:/fork.safetensors');
      const [same] = await lm.generate({ input_ids: [[]], state: again, max_new_tokens: 4, do_sample: false });
      const stop = new AbortController();
      setTimeout(() => stop.abort(), 300);
      const asked = { input_ids: [[5, 6]], min_new_tokens: 500, max_new_tokens: 500, signal: stop.signal };
      const [part] = await lm.generate(asked); // what was written until then
      const refused = await lm.generate(asked).then(
        () => 'done',
        (error: Error) => error.name,
      );
      const wrong = await lm.generate({ input_ids: [[5]], max_new_tokns: 3 }).then(
        () => null,
        (error: Error & { data?: object }) => [error.name, error.message, error.constructor.name !== 'Error'],
      );
      const ended = await remote.deviceReport().then(
        () => '',
        (error: Error) => error.message,
      );
      for (const each of [state, fork, again, lm]) await each.dispose();
      return { count: encoded.length, seen, ids, put, same, part: part!.length, refused, wrong, ended };
    }, MODEL);
    expect(out.seen).to.deep.equal([out.count]);
    expect(out.ids).to.have.length(4);
    expect(out.put).to.deep.equal(out.ids);
    expect(out.same).to.deep.equal(out.ids);
    expect(out.part).to.be.within(2, 400);
    expect(out.refused).to.equal('AbortError');
    expect(out.ended).to.match(/The worker was ended/);
    expect(out.wrong![0]).to.match(/^(ArgumentError|GenerationError)$/);
    expect(out.wrong![1]).to.match(/max_new_tokens/);
    expect(out.wrong![2]).to.equal(true);
  });

  it('says so when its code is not there', async () => {
    const message = await page.evaluate(async () => {
      const remote = w.startWorker({ url: '/none.js' });
      return remote.deviceReport().then(
        () => '',
        (error: Error) => `${error.name}: ${error.message}`,
      );
    });
    expect(message).to.match(/^DeviceError: The worker's code does not run.*worker_script\.js/);
  });
});
