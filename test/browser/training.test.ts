/** Training in a page gives the losses that Node.js gives; an adapter that was trained there is used in a page. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import type { Page } from 'playwright-core';
import { buildWeb } from '../../scripts/build_web.mjs';
import * as api from '../../src/index.js';
import { inChromium, openPage, serve, type TestServer } from '../support/pages.js';
import type * as Whole from '../../src/whole.js';

declare const m: typeof Whole;

const STEPS = 20;

/** Twenty updates of all weights. Runs in Node.js and, as it is written, in a page. */
async function losses(package_: typeof api, model: string, output_dir: string, steps: number): Promise<number[]> {
  const lm = await package_.AutoModelForCausalLM.from_pretrained(model, { device: 'wasm' });
  const tokenizer = await package_.AutoTokenizer.from_pretrained(model);
  const texts = [
    'The sea was calm that night',
    'Once upon a time there was a king',
    'It was late',
    'He went home again',
  ];
  const trainer = new package_.SFTTrainer({
    model: lm,
    processing_class: tokenizer,
    args: {
      output_dir,
      max_length: 12,
      max_steps: steps,
      learning_rate: 1e-4,
      logging_steps: 1,
      per_device_train_batch_size: 2,
      save_strategy: 'no',
      report_to: 'none',
      disable_tqdm: true,
    },
    train_dataset: texts.map((text) => ({ text })),
  });
  await trainer.train();
  const found = trainer.state.log_history.flatMap(({ loss }) => (loss === undefined ? [] : [loss]));
  trainer.dispose();
  lm.dispose();
  return found;
}

inChromium('training and adapters in a page', [], (browser) => {
  let root: string;
  let server: TestServer;
  let page: Page;
  before(async () => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-training-'));
    await buildWeb(path.join(root, 'web'));
    const folders = { web: path.join(root, 'web'), adapter: path.join(root, 'adapter'), models: 'models' };
    server = await serve({ folders, pages: { '/': '<!doctype html>' } });
    page = await openPage(browser(), server.url);
    await page.evaluate(`import('/web/tfjs-mamba2.min.js').then((m) => { globalThis.m = m; })`);
  });
  after(async () => {
    await page.close();
    await server.close();
    fs.rmSync(root, { recursive: true, force: true });
  });

  it(`${STEPS} steps of SFT on tiny-books give Node's losses`, async () => {
    const here = await losses(api, 'models/tiny-books-mamba2', path.join(root, 'run'), STEPS);
    const there = await page.evaluate<number[]>(
      `(${losses.toString()})(m, '/models/tiny-books-mamba2/', 'opfs:/run', ${STEPS})`,
    );
    expect(here).to.have.length(STEPS);
    expect(here.at(-1)).to.be.below(here[0]! - 0.5);
    expect(there).to.have.length(STEPS);
    there.forEach((loss, i) => expect(loss, `step ${i + 1}`).to.be.closeTo(here[i]!, 1e-4));
  });

  it('examples are read where they lie', async () => {
    fs.writeFileSync(path.join(root, 'web/lines.jsonl'), '{"text":"one"}\n{"text":"two"}\n');
    fs.writeFileSync(path.join(root, 'web/lines.txt'), 'one\ntwo\n');
    fs.writeFileSync(path.join(root, 'web/list.json'), '[{"text":"one"},{"text":"two"}]');
    for (const file of ['/web/lines.jsonl', '/web/lines.txt', '/web/list.json'])
      expect(await page.evaluate((name) => m.loadExamples(name), file), file).to.deep.equal([
        { text: 'one' },
        { text: 'two' },
      ]);
    const missing = await page.evaluate(() => m.loadExamples('/web/none.jsonl').then(() => '', String));
    expect(missing).to.match(/ArgumentError: There is no file \/web\/none\.jsonl/);
    const csv = await page.evaluate((name) => m.loadExamples(name, { delimiter: ';' }).then(() => '', String), '/web/lines.jsonl'); // prettier-ignore
    expect(csv).to.match(/changes nothing in how/);
  });

  it('an adapter that Node.js trained writes in a page what it writes there', async () => {
    const model = await api.AutoModelForCausalLM.from_pretrained('models/tiny-books-mamba2', { device: 'wasm' });
    const plain = (await model.generate({ input_ids: [[5, 6, 7]], max_new_tokens: 8, do_sample: false })).flat();
    const tokenizer = await api.AutoTokenizer.from_pretrained('models/tiny-books-mamba2');
    const trainer = new api.SFTTrainer({
      model,
      processing_class: tokenizer,
      peft_config: { r: 4, lora_alpha: 8, target_modules: ['in_proj', 'out_proj'] },
      args: { output_dir: path.join(root, 'lora'), max_length: 12, max_steps: 8, learning_rate: 1e-2, save_strategy: 'no', report_to: 'none' }, // prettier-ignore
      train_dataset: [{ text: 'The sea was calm that night and the moon' }],
    });
    await trainer.train();
    await api.save_adapter(trainer.model as api.PeftModel, path.join(root, 'adapter'));
    const here = (await model.generate({ input_ids: [[5, 6, 7]], max_new_tokens: 8, do_sample: false })).flat();
    trainer.dispose();
    model.dispose();
    expect(here).to.not.deep.equal(plain);
    const there = await page.evaluate(async () => {
      const lm = await m.AutoModelForCausalLM.from_pretrained('/models/tiny-books-mamba2/');
      const peft = await m.load_peft_model(lm, '/adapter/');
      const ids = (await lm.generate({ input_ids: [[5, 6, 7]], max_new_tokens: 8, do_sample: false })).flat();
      // and back into the page's private files
      await m.save_adapter(peft, 'opfs:/adapter');
      const again = await m.AutoModelForCausalLM.from_pretrained('/models/tiny-books-mamba2/');
      await m.load_peft_model(again, 'opfs:/adapter');
      const same = (await again.generate({ input_ids: [[5, 6, 7]], max_new_tokens: 8, do_sample: false })).flat();
      return { ids, same };
    });
    expect(there.ids).to.deep.equal(here);
    expect(there.same).to.deep.equal(here);
  });
});
