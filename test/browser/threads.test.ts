/** Threads in pages that are cross-origin isolated, and their absence in others: the text is that of one thread. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { buildWeb } from '../../scripts/build_web.mjs';
import { inChromium, openPage, serve } from '../support/pages.js';
import type * as Entry from '../../src/whole.js';

declare const w: typeof Entry;

const TEXT = /^Once upon a time of year, and a little girl, who was a very good-natured man/;

inChromium('threads of a page', [], (browser) => {
  let root: string;
  before(async () => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-threads-'));
    await buildWeb(root);
  });
  after(() => fs.rmSync(root, { recursive: true, force: true }));

  /** What a page writes, in so many threads, and how many workers it has then. */
  async function write(isolated: boolean, threads?: number) {
    const server = await serve({
      folders: { web: root, models: 'models' },
      pages: { '/': '<!doctype html>' },
      isolated,
    });
    const page = await openPage(browser(), server.url);
    try {
      await page.evaluate(`import('/web/tfjs-mamba2.min.js').then((w) => { globalThis.w = w; })`);
      const out = await page.evaluate(
        async ([count, model]) => {
          if (count !== undefined) w.configureBrowser({ threads: count });
          const quantization_config = new w.Int4WeightOnlyConfig({ group_size: 32 });
          const plain = await w.pipeline('text-generation', model);
          const small = await w.pipeline('text-generation', model, { model_kwargs: { quantization_config } });
          const texts = [];
          for (const each of [plain, small]) {
            const [out] = await each('Once upon a time', { max_new_tokens: 40, do_sample: false });
            texts.push(out!.generated_text);
            each.dispose();
          }
          return { texts, tensors: w.tf.memory().numTensors };
        },
        [threads, '/models/tiny-books-mamba2/'] as const,
      );
      return { ...out, workers: page.workers().length };
    } finally {
      await page.close();
      await server.close();
    }
  }

  it('one for each of three threads but the own, and the text of one thread; of quantised weights, too', async () => {
    const alone = await write(true, 1);
    const three = await write(true, 3);
    expect([alone.workers, three.workers]).to.deep.equal([0, 2]);
    for (const { texts } of [alone, three]) expect(texts[0]).to.match(TEXT);
    expect(three.texts).to.deep.equal(alone.texts);
    expect(three.tensors).to.equal(0);
  });

  it('no worker where a page is not isolated, whatever is asked for', async () => {
    const { texts, workers } = await write(false, 3);
    expect(workers).to.equal(0);
    expect(texts[0]).to.match(TEXT);
  });
});
