/** Folders of several adapters: where PEFT has them, all of them, and read again as they were. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, CheckpointError } from '../../src/base/errors.js';
import type { Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { get_peft_model, load_peft_model, LoraConfig, type PeftModel, save_adapter } from '../../src/peft/index.js';
import { Trainer, trainableOf } from '../../src/training/index.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { rejection } from '../support/errors.js';
import { tinyModel } from '../support/tiny_model.js';

const row = [1, 5, 2, 9, 3, 10, 4, 4];
const logits = (of: PeftModel | Mamba2ForCausalLM): Float32Array =>
  tf.tidy(() =>
    of
      .forward({ input_ids: [row], use_cache: false })
      .logits.dataSync<'float32'>()
      .slice(),
  );
const files = (dir: string): string[] =>
  (fs.readdirSync(dir, { recursive: true }) as string[]).filter((f) => /\.(json|safetensors)$/.test(f)).sort();

/** Two adapters, both active, that differ in rank and targets. */
function two(model: Mamba2ForCausalLM, first = 'default', seed = 3): PeftModel {
  const peft = get_peft_model(model, { r: 2, init_lora_weights: false }, { adapter_name: first, seed });
  const config = new LoraConfig({ r: 3, target_modules: ['in_proj', 'embeddings'], init_lora_weights: false });
  peft.add_adapter('style', config, { seed: seed + 1 });
  peft.set_adapter([first, 'style']);
  return peft;
}

describe('folders of several adapters', () => {
  let dir = '';
  let model: Mamba2ForCausalLM;
  before(() => useBackend('tensorflow'));
  beforeEach(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'adapters-'));
    ({ model } = tinyModel());
  });
  afterEach(() => {
    fs.rmSync(dir, { recursive: true });
    model.dispose();
  });

  it("has each of those that are active where PEFT has it, and gives the model's logits when read", async () => {
    for (const [first, place] of [
      ['default', ''],
      ['tone', 'tone/'],
    ] as const) {
      const out = path.join(dir, first);
      const peft = two(model, first);
      const want = logits(peft);
      await save_adapter(peft, out);
      peft.dispose();
      expect(files(out)).to.deep.equal(
        [
          'active_adapters.json',
          ...[place, 'style/'].flatMap((p) => [`${p}adapter_config.json`, `${p}adapter_model.safetensors`]),
        ].sort(),
      );
      const again = await load_peft_model(model, out);
      expect(again.active_adapters).to.deep.equal([first, 'style']);
      expect(logits(again)).to.deep.equal(want);
      again.dispose();
      const one = await load_peft_model(model, out, { adapter_name: 'style' });
      expect([...one.trainable().values()].every((v) => v.shape.includes(3))).to.equal(true);
      one.dispose();
      expect((await rejection(load_peft_model(model, out, { adapter_name: 'x' }))).message).to.match(/it has .*style/);
    }
  });

  it('has all of them while adapters are disabled as well', async () => {
    const peft = two(model);
    peft.disable_adapter_layers();
    await save_adapter(peft, dir);
    peft.dispose();
    expect(files(dir)).to.include('style/adapter_model.safetensors');
  });

  it('holds what was saved last, whether one or several', async () => {
    const peft = two(model, 'tone');
    const both = logits(peft);
    peft.set_adapter('style');
    const style = logits(peft);
    const read = async (): Promise<Float32Array> => {
      const again = await load_peft_model(model, dir);
      const got = logits(again);
      again.dispose();
      return got;
    };
    const save = async (names: string | string[]): Promise<void> => {
      peft.set_adapter(names);
      await save_adapter(peft, dir);
    };
    await save(['tone', 'style']);
    await save('style');
    peft.dispose();
    expect(await read()).to.deep.equal(style);
    const anew = two(model, 'tone');
    await save_adapter(anew, dir);
    anew.dispose();
    expect(await read()).to.deep.equal(both);
    expect(fs.existsSync(path.join(dir, 'adapter_config.json')), 'the single one').to.equal(false);
  });

  it('is refused for names that are no folders, with nothing written; and read whole or not at all', async () => {
    const peft = two(model, '../elsewhere');
    expect(await rejection(save_adapter(peft, path.join(dir, 'a')))).to.be.instanceOf(ArgumentError);
    expect(fs.existsSync(path.join(dir, 'a'))).to.equal(false);
    peft.dispose();
    const plain = logits(model);
    const good = two(model);
    await save_adapter(good, dir);
    good.dispose();
    fs.rmSync(path.join(dir, 'style', 'adapter_model.safetensors'));
    const before = tensorCount();
    expect(await rejection(load_peft_model(model, dir))).to.be.instanceOf(CheckpointError);
    expect(logits(model)).to.deep.equal(plain);
    expect(tensorCount()).to.deep.equal(before);
    fs.writeFileSync(path.join(dir, 'active_adapters.json'), '{"active_adapters": ["../x"]}');
    expect((await rejection(load_peft_model(model, dir))).message).to.match(/'\.\.\/x'/);
  });

  it('is what a snapshot of training several is, from which training goes on to the bit', async () => {
    const examples = Array.from({ length: 8 }, (_, i) => ({ input_ids: row.map((x) => (x + i) % 11) }));
    const train = async (peft: PeftModel, out: string, from?: string): Promise<Map<string, Float32Array>> => {
      const trainer = new Trainer({
        model: peft,
        args: {
          output_dir: path.join(dir, out),
          engine: 'eager',
          max_steps: 4,
          save_strategy: 'steps',
          save_steps: 2,
          per_device_train_batch_size: 2,
        },
        train_dataset: examples,
      });
      await trainer.train({ resume_from_checkpoint: from });
      trainer.dispose();
      return new Map([...trainableOf(peft).trainable()].map(([k, v]) => [k, v.dataSync<'float32'>().slice()]));
    };
    const whole = two(model);
    const want = await train(whole, 'a');
    whole.dispose();
    const halfway = path.join(dir, 'a', 'checkpoint-2');
    const resumed = await load_peft_model(model, halfway);
    expect(resumed.active_adapters).to.deep.equal(['default', 'style']);
    expect(await train(resumed, 'b', halfway)).to.deep.equal(want);
    resumed.dispose();
    const loaded = await load_peft_model(model, path.join(dir, 'a', 'checkpoint-4'));
    for (const [name, v] of loaded.trainable()) expect(v.dataSync(), name).to.deep.equal(want.get(name));
    loaded.dispose();
  });
});
