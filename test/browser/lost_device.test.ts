/** A WebGPU device that is lost while a page writes: a clear error, and WebAssembly goes on. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { buildWeb } from '../../scripts/build_web.mjs';
import { inChromium, openPage, serve } from '../support/pages.js';
import type * as Entry from '../../src/whole.js';

declare const w: typeof Entry;

inChromium('a lost WebGPU device', ['--enable-unsafe-webgpu'], (browser) => {
  let root: string;
  before(async () => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-lost-'));
    await buildWeb(root);
  });
  after(() => fs.rmSync(root, { recursive: true, force: true }));

  it('is told of in the middle of a text and after it, and another backend is as before', async () => {
    const server = await serve({ folders: { web: root, models: 'models' }, pages: { '/': '<!doctype html>' } });
    const page = await openPage(browser(), server.url);
    try {
      await page.evaluate(`import('/web/tfjs-mamba2.min.js').then((w) => { globalThis.w = w; })`);
      const out = await page.evaluate(async (model) => {
        const write = await w.pipeline('text-generation', model, { device: 'webgpu' });
        const { device } = w.tf.backend() as unknown as { device: { destroy(): void } };
        let written = 0;
        const told = (error: unknown): string[] => [(error as Error).name, (error as Error).message];
        const failed = await write('Once upon a time', {
          max_new_tokens: 400,
          streamer: {
            put: () => {
              if (++written === 20) device.destroy();
            },
            end: () => undefined,
          },
        }).then(() => [], told);
        const again = await write('Once', { max_new_tokens: 4 }).then(() => [], told);
        const other = await w.pipeline('text-generation', model, { device: 'wasm' });
        const [text] = await other('Once upon a time', { max_new_tokens: 12, do_sample: false });
        return { written, failed, again, text: text!.generated_text };
      }, '/models/tiny-books-mamba2/');
      expect(out.written).to.be.at.least(20);
      for (const [name, message] of [out.failed, out.again]) {
        expect(name).to.equal('DeviceError');
        expect(message).to.match(/^The WebGPU device was lost \(destroyed/);
      }
      expect(out.text).to.match(/^Once upon a time of year/);
    } finally {
      await page.close();
      await server.close();
    }
  });
});
