/** A WebGPU device that is lost: a clear error whenever it is, and the model can be loaded again or go on with WebAssembly. */
import { expect } from 'chai';
import { builtPackage, ModelPage, TEXT } from '../support/model_page.js';
import { inChromium } from '../support/pages.js';
import type * as Entry from '../../src/whole.js';

declare const m: typeof Entry;

/** When the device is lost. */
const TIMES = [
  'while the model loads',
  'while a prompt is read',
  'in the middle of a text',
  'while nothing is done',
] as const;

inChromium('a WebGPU device that is lost', ['--enable-unsafe-webgpu'], (browser) => {
  const built = builtPackage();

  for (const when of TIMES)
    it(`${when} is told of, and another device and another backend are as before`, async () => {
      const at = await ModelPage.open(browser(), built.folder);
      try {
        const out = await at.page.evaluate(
          async ([model, time]) => {
            const told = (error: unknown): string => `${(error as Error).name}: ${(error as Error).message}`;
            const lose = (): void => (m.tf.backend() as unknown as { device: { destroy(): void } }).device.destroy();
            const text = { max_new_tokens: 8, do_sample: false } as const;
            const load = (device: 'webgpu' | 'wasm') =>
              m.pipeline('text-generation', model, {
                device,
                on_progress: ({ file, written, total }) => {
                  if (file === 'model.safetensors' && written < total && time === 'while the model loads') lose();
                },
              });
            await m.selectBackend('webgpu');
            let written = 0;
            let failed = '';
            let write: Awaited<ReturnType<typeof load>> | null = null;
            try {
              write = await load('webgpu');
              if (time === 'while nothing is done') {
                await write('Once', text);
                lose();
                await new Promise((done) => setTimeout(done, 100));
              }
              if (time === 'while a prompt is read') setTimeout(lose, 0);
              const prompt = time === 'while a prompt is read' ? 'Once upon a time, '.repeat(100) : 'Once upon a time';
              await write(prompt, {
                max_new_tokens: 400,
                streamer: {
                  put: () => {
                    if (++written === 20 && time === 'in the middle of a text') lose();
                  },
                  end: () => undefined,
                },
              });
            } catch (error) {
              failed = told(error);
            }
            const again = write ? await write('Once', text).then(() => '', told) : failed;
            const texts: string[] = [];
            for (const device of ['wasm', 'webgpu'] as const) {
              await m.selectBackend(device);
              const time_ = time;
              time = 'later' as typeof time;
              const other = await load(device);
              time = time_;
              texts.push((await other('Once upon a time', text))[0]!.generated_text);
              other.dispose();
            }
            let disposed = '';
            try {
              write?.dispose();
            } catch (error) {
              disposed = told(error);
            }
            return { written, failed, again, texts, disposed };
          },
          ['/models/tiny-books-mamba2/', when] as [string, (typeof TIMES)[number]],
        );
        if (when === 'in the middle of a text') expect(out.written).to.be.at.least(20);
        for (const message of [out.failed, out.again])
          expect(message).to.match(/^DeviceError: The WebGPU device was lost \(destroyed.*Load the model again/);
        expect(out.texts).to.deep.equal([TEXT, TEXT]);
        expect(out.disposed).to.equal('');
      } finally {
        await at.close();
      }
    });
});
