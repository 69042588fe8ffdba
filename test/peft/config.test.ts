/** LoraConfig, target matching, adapter folders: what is taken, what is refused and why. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { parseSafetensorsHeader } from '../../src/checkpoints/index.js';
import { Mamba2Config, Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { get_peft_model, load_peft_model, LoraConfig, save_adapter } from '../../src/peft/index.js';
import { useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { LEARNER } from '../support/tiny_model.js';

const tiny = (tie_word_embeddings = true): Mamba2ForCausalLM =>
  new Mamba2ForCausalLM(new Mamba2Config({ ...LEARNER, num_hidden_layers: 2, chunk_size: 8, tie_word_embeddings }));
const input_ids = [[3, 7, 1, 9, 30, 2]];

describe('LoraConfig', () => {
  it('has the defaults of PEFT, and scales by alpha/r or alpha/sqrt(r)', () => {
    const config = new LoraConfig();
    expect([config.r, config.lora_alpha, config.lora_dropout, config.target_modules]).to.deep.equal([
      8,
      8,
      0,
      ['in_proj'],
    ]);
    expect(new LoraConfig({ r: 4, lora_alpha: 8 }).scale('x.in_proj')).to.equal(2);
    expect(new LoraConfig({ r: 4, lora_alpha: 8, use_rslora: true }).scale('x.in_proj')).to.equal(4);
  });

  it('takes rank and alpha of single modules, the name a suffix or a pattern', () => {
    const config = new LoraConfig({
      r: 4,
      lora_alpha: 8,
      rank_pattern: { 'layers.1.mixer.in_proj': 2 },
      alpha_pattern: { 'layers.[0-9]+.mixer.in_proj': 6 },
    });
    expect(config.rank('backbone.layers.1.mixer.in_proj')).to.equal(2);
    expect(config.rank('backbone.layers.11.mixer.in_proj')).to.equal(4);
    expect(config.scale('backbone.layers.1.mixer.in_proj')).to.equal(3);
    expect(config.scale('backbone.embeddings')).to.equal(2);
  });

  it('matches whole names: a suffix at a dot, a regular expression in full', () => {
    const targets = (target_modules: string[] | string, name: string): boolean =>
      new LoraConfig({ target_modules }).targets(name);
    expect(targets(['proj'], 'backbone.layers.0.mixer.in_proj')).to.equal(false);
    expect(targets(['mixer.in_proj'], 'backbone.layers.0.mixer.in_proj')).to.equal(true);
    expect(targets('.*in_proj', 'backbone.layers.0.mixer.in_proj')).to.equal(true);
    expect(targets('in_proj', 'backbone.layers.0.mixer.in_proj')).to.equal(false);
    expect(new LoraConfig({ layers_to_transform: 1 }).targets('backbone.layers.0.mixer.in_proj')).to.equal(false);
    expect(
      new LoraConfig({ exclude_modules: ['layers.0.mixer.in_proj'] }).targets('backbone.layers.0.mixer.in_proj'),
    ).to.equal(false);
  });

  // what PEFT 0.21's check_target_module_exists says of these names
  for (const [pattern, wanted] of [
    [null, [false, true, true, false, true, true]],
    ['layers', [false, true, false, true, true, true]],
    [['blocks'], [false, false, true, false, false, true]],
    [
      ['blocks', 'layers'],
      [false, true, true, true, true, true],
    ],
    ['h', [false, false, false, false, false, true]],
    ['lay.rs', [false, true, false, true, true, true]],
  ] as const) {
    it(`takes blocks by their number as PEFT does, layers_pattern ${JSON.stringify(pattern)}`, () => {
      const names = [
        'backbone.layers.0.mixer.in_proj',
        'backbone.layers.1.mixer.in_proj',
        'backbone.blocks.1.mixer.in_proj',
        'layers.1.mixer.in_proj',
        'backbone.layers.1.parts.2.in_proj',
        'lm_head',
      ];
      const config = new LoraConfig({
        target_modules: ['in_proj', 'lm_head'],
        layers_to_transform: [1],
        layers_pattern: pattern,
      });
      expect(names.map((name) => config.targets(name))).to.deep.equal(wanted);
      expect(config.to_dict()['layers_pattern']).to.deep.equal(pattern);
    });
  }

  it('adapts no module that is trained whole, nor what is in it, as PEFT', () => {
    const targets = (modules_to_save: string[], name: string): boolean =>
      new LoraConfig({ target_modules: ['in_proj', 'embeddings'], modules_to_save }).targets(name);
    expect(targets(['embeddings'], 'backbone.embeddings')).to.equal(false);
    expect(targets(['layers.1'], 'backbone.layers.1.mixer.in_proj')).to.equal(false);
    expect(targets(['layers.1'], 'backbone.layers.0.mixer.in_proj')).to.equal(true);
    expect(targets(['layers.1'], 'backbone.layers.11.mixer.in_proj')).to.equal(true);
  });

  for (const [what, fields, message] of [
    ['blocks of a regular expression', { target_modules: '.*in_proj', layers_to_transform: 1 }, /layers_to_transform/],
    ['a pattern without blocks', { layers_pattern: 'layers' }, /layers_pattern cannot be used without/],
    ['a pattern that is none', { layers_to_transform: 1, layers_pattern: '(' }, /is not a regular expression/],
    ['rank 0', { r: 0 }, /r is 0, expected a positive integer/],
    ['dropout 1', { lora_dropout: 1 }, /expected a number in \[0, 1\)/],
    ['DoRA', { use_dora: true }, /use_dora.*does not support/],
    ['trained biases', { bias: 'all' }, /bias is "all"/],
    ['another method', { peft_type: 'IA3' }, /only 'LORA'/],
    ['a misspelt name', { target_module: ['in_proj'] }, /It is called target_modules here/],
    ['a name of another library', { lora_alfa: 16 }, /Did you mean lora_alpha\?/],
    ['an initialisation that it has not', { eva_config: {} }, /eva_config.*not supported/],
    ['no targets', { target_modules: [] }, /target_modules is \[\]/],
  ] as const) {
    it(`refuses ${what}`, () => expect(() => new LoraConfig(fields as object)).to.throw(message));
  }
});

describe('get_peft_model', () => {
  before(() => useBackend('tensorflow'));

  it('changes nothing at first, and only the targets have parameters', () => {
    const model = tiny();
    const before = tf.tidy(() => model.forward({ input_ids }).logits.dataSync().slice());
    const warnings: string[] = [];
    const peft = get_peft_model(
      model,
      { r: 2, target_modules: ['in_proj', 'out_proj', 'embeddings'] },
      { seed: 1, on_warning: (w) => warnings.push(w) },
    );
    expect(tf.tidy(() => peft.forward({ input_ids }).logits.dataSync())).to.deep.equal(before);
    expect(warnings).to.have.length(1);
    expect(warnings[0]).to.match(/out_proj.*PEFT refuses/);
    const projSize = 2 * 32 + 2 * 8 + 4;
    expect(peft.get_nb_trainable_parameters().trainable).to.equal(
      2 * (2 * (16 + projSize) + 2 * (16 + 32)) + 2 * (31 + 16),
    );
    peft.dispose();
    model.dispose();
  });

  it('is the same for the same seed', () => {
    const model = tiny();
    const values = (seed: number): number[] => {
      const peft = get_peft_model(model, { r: 2 }, { seed });
      const all = [...peft.trainable().values()].flatMap((v) => [...v.dataSync()]);
      peft.dispose();
      return all;
    };
    expect(values(5)).to.deep.equal(values(5));
    expect(values(5)).to.not.deep.equal(values(6));
    model.dispose();
  });

  it('refuses conv1d with the reason, and names that match nothing', () => {
    const model = tiny();
    expect(() => get_peft_model(model, { target_modules: ['conv1d'] })).to.throw(/depthwise convolution/);
    expect(() => get_peft_model(model, { target_modules: ['q_proj'] })).to.throw(/matches no module.*in_proj/);
    expect(() => get_peft_model(model, { modules_to_save: ['q_proj'] })).to.throw(/modules_to_save names 'q_proj'/);
    const shared = { ensure_weight_tying: true, target_modules: ['embeddings', 'lm_head'] };
    expect(() => get_peft_model(model, new LoraConfig(shared))).to.throw(/ensure_weight_tying/);
    model.dispose();
  });

  it('keeps a tied head as it was: an embedding adapter acts on the lookup, merged too', () => {
    const model = tiny();
    const config = { r: 2, init_lora_weights: false, target_modules: ['embeddings', 'in_proj'] } as const;
    const peft = get_peft_model(model, config, { seed: 3 });
    const want = tf.tidy(() => peft.forward({ input_ids }).logits.dataSync().slice());
    peft.merge_adapter();
    tf.tidy(() => expectClose(peft.forward({ input_ids }).logits, want, 1e-4, 'merged in place'));
    peft.unmerge_adapter();
    const whole = peft.merge_and_unload();
    expect(whole.config.tie_word_embeddings).to.equal(false);
    tf.tidy(() => expectClose(whole.forward({ input_ids }).logits, want, 1e-4, 'merged model'));
    [whole, peft, model].forEach((x) => x.dispose());
  });

  it('trains whole modules next to the adapter, and stores them with it', async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'peft-'));
    const model = tiny(false);
    const peft = get_peft_model(
      model,
      { r: 2, modules_to_save: ['lm_head', 'norm_f'], init_lora_weights: false },
      { seed: 4 },
    );
    const head = peft.trainable().get('lm_head.weight')!;
    expect(head).to.not.equal(peft.frozen()['lm_head.weight']);
    head.assign(tf.tidy(() => tf.mul(head, 2)));
    const want = tf.tidy(() => peft.forward({ input_ids }).logits.dataSync().slice());
    await save_adapter(peft, dir);
    const bytes = fs.readFileSync(path.join(dir, 'adapter_model.safetensors'));
    const length = Number(bytes.readBigUInt64LE(0));
    const { entries } = parseSafetensorsHeader(bytes.subarray(8, 8 + length), 8 + length, bytes.length, 'x');
    expect([...entries.keys()].sort()).to.deep.equal([
      ...[0, 1].flatMap((i) =>
        ['A', 'B'].map((f) => `base_model.model.backbone.layers.${i}.mixer.in_proj.lora_${f}.weight`),
      ),
      'base_model.model.backbone.norm_f.weight',
      'base_model.model.lm_head.weight',
    ]);
    peft.dispose();
    const again = await load_peft_model(model, dir);
    expect(tf.tidy(() => again.forward({ input_ids }).logits.dataSync())).to.deep.equal(want);
    again.dispose();
    model.dispose();
    fs.rmSync(dir, { recursive: true });
  });

  it('refuses an adapter folder whose tensors do not fit, naming them', async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'peft-'));
    const model = tiny();
    const peft = get_peft_model(model, { r: 2 });
    await save_adapter(peft, dir);
    peft.dispose();
    const file = path.join(dir, 'adapter_config.json');
    const config = JSON.parse(fs.readFileSync(file, 'utf8')) as Record<string, unknown>;
    const attempt = async (change: Record<string, unknown>): Promise<string> => {
      fs.writeFileSync(file, JSON.stringify({ ...config, ...change }));
      return load_peft_model(model, dir).then(
        () => 'loaded',
        (error: Error) => error.message,
      );
    };
    expect(await attempt({ target_modules: ['in_proj', 'embeddings'] })).to.match(
      /Missing: backbone\.embeddings\.lora_embedding_A/,
    );
    expect(await attempt({ target_modules: ['embeddings'] })).to.match(/Left over: backbone\.layers\.0/);
    expect(await attempt({ r: 4 })).to.match(/has shape \[2,16\], expected \[4,16\]/);
    expect(await attempt({})).to.equal('loaded');
    fs.rmSync(dir, { recursive: true });
  });

  it('drops adapter inputs in training only, in expectation the same', () => {
    const model = tiny();
    const peft = get_peft_model(model, { r: 2, lora_dropout: 0.5, init_lora_weights: false }, { seed: 2 });
    const own = Object.fromEntries(peft.trainable());
    const name = 'backbone.layers.0.mixer.in_proj.weight';
    tf.tidy(() => {
      const x = tf.ones([1, 16]) as tf.Tensor2D;
      const apply = (seed?: number): tf.Tensor => {
        const weight = peft.compose(
          own,
          peft.frozen(),
          seed === undefined ? undefined : tf.tensor1d([seed, 7], 'int32'),
        )[name]!;
        return (weight as unknown as { apply(v: tf.Tensor2D): tf.Tensor }).apply(x);
      };
      const plain = apply();
      const draws = Array.from({ length: 600 }, (_, i) => apply(i));
      expect(draws[0]!.dataSync()).to.deep.equal(apply(0).dataSync());
      expect(draws[0]!.dataSync()).to.not.deep.equal(draws[1]!.dataSync());
      const mean = tf.mean(tf.stack(draws), 0);
      const spread = tf.max(tf.abs(tf.sub(mean, plain))).dataSync()[0]!;
      const scale = tf.max(tf.abs(tf.sub(draws[0]!, plain))).dataSync()[0]!;
      expect(spread).to.be.below(scale / 4);
    });
    peft.dispose();
    model.dispose();
  });
});
