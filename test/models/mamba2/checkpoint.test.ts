import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'chai';
import {
  type OutTensor,
  parseConfigJson,
  saveCheckpoint,
  stringifyConfigJson,
} from '../../../src/checkpoints/index.js';
import { withHuggingFaceNames } from '../../../src/checkpoints/names.js';
import { judgeConfig, NamedCheckpoint } from '../../../src/checkpoints/open.js';
import { openCheckpoint, validateCheckpoint } from '../../../src/models/checkpoints.js';
import { deriveConfig, refuseInexpressible } from '../../../src/models/mamba2/checkpoint/derive.js';
import { mamba2Format } from '../../../src/models/mamba2/checkpoint/format.js';
import { expectedTensors } from '../../../src/models/mamba2/checkpoint/shapes.js';
import { huggingFaceConfig } from '../../../src/models/mamba2/checkpoint/written_by.js';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/causal_lm.js';
import { Mamba2Config } from '../../../src/models/mamba2/config.js';
import { huggingFaceName } from '../../../src/models/mamba2/checkpoint/names.js';
import { CheckpointError, ConfigError } from '../../../src/base/errors.js';
import { loadGolden } from '../../support/goldens.js';
import { folderForEach } from '../../support/cleanup.js';
import { containerOf, randomTensors, TINY_CONFIG, zeros } from '../../support/checkpoint.js';

type Config = Record<string, unknown>;

/** mamba_ssm's config.json for TINY_CONFIG. */
const RAW: Config = {
  d_model: 8,
  n_layer: 2,
  vocab_size: 11,
  pad_vocab_size_multiple: 1,
  tie_embeddings: false,
  ssm_cfg: { layer: 'Mamba2', d_state: 3, headdim: 4, ngroups: 2, chunk_size: 4 },
};

/** A config.json of flash-linear-attention for TINY_CONFIG. */
const fla = (changes: Config): Config => {
  const config: Config = { ...TINY_CONFIG, fuse_norm: true, fuse_cross_entropy: true };
  delete config.time_step_limit;
  return { ...config, ...changes };
};

const shapesOf = (tensors: readonly OutTensor[]) => containerOf(tensors).tensors;
const tensors = randomTensors(TINY_CONFIG);
const derive = (config: Config, shapes = shapesOf(tensors)): Config =>
  deriveConfig('state-spaces', config, shapes, 'dir/config.json');
const ssm = (changes: Config): Config => ({ ...RAW, ssm_cfg: { ...(RAW.ssm_cfg as Config), ...changes } });
const without = (...keys: string[]): Config =>
  ({ ...RAW, ssm_cfg: Object.fromEntries(Object.entries(RAW.ssm_cfg as Config).filter(([k]) => !keys.includes(k))) }); // prettier-ignore

/** The checkpoint as from_pretrained would meet it. */
function checkpoint(config: Config, list: readonly OutTensor[]): NamedCheckpoint {
  const container = containerOf(list);
  return new NamedCheckpoint('hf', 'dir', config, withHuggingFaceNames(mamba2Format, container), container);
}

describe('configuration derived from weights', () => {
  it('finds every size of a Mamba-2', () => {
    expect(derive(RAW)).to.deep.include(TINY_CONFIG);
    // and from as little as the shapes leave open
    expect(derive(without('d_state', 'headdim'))).to.deep.include(TINY_CONFIG);
    expect(derive(without('ngroups', 'headdim', 'layer'))).to.deep.include(TINY_CONFIG);
    const bare = { ssm_cfg: { ngroups: 2, chunk_size: 4 }, tie_embeddings: false };
    expect(derive(bare)).to.deep.include(TINY_CONFIG);
  });

  it('takes what shapes cannot tell from ssm_cfg', () => {
    const config = derive(ssm({ dt_limit: [0.01, 0.5], dt_min: 0.002, dt_max: 0.2, dt_init_floor: 0.003 }));
    expect(config.time_step_limit).to.deep.equal([0.01, 0.5]);
    expect(config).to.include({ time_step_min: 0.002, time_step_max: 0.2, time_step_floor: 0.003 });
    expect(derive(without('chunk_size')).chunk_size).to.equal(256);
  });

  it('finds biases', () => {
    const biased = { ...TINY_CONFIG, use_bias: true, use_conv_bias: false };
    expect(derive(RAW, shapesOf(randomTensors(biased)))).to.include({ use_bias: true, use_conv_bias: false });
  });

  it('refuses declarations that contradict the shapes, naming the key', () => {
    for (const [config, key] of [
      [{ ...RAW, d_model: 16 }, 'd_model'],
      [{ ...RAW, n_layer: 3 }, 'n_layer'],
      [{ ...RAW, vocab_size: 12 }, 'vocab_size'],
      [ssm({ d_state: 4 }), 'd_state'],
      [ssm({ headdim: 8 }), 'headdim'],
      [ssm({ ngroups: 4 }), 'groups'],
      [ssm({ d_conv: 3 }), 'd_conv'],
      [ssm({ expand: 4 }), 'expand'],
    ] as const)
      expect(() => derive(config), key).to.throw(ConfigError, key);
  });

  it('does not guess how 6 channels split into groups', () => {
    expect(() => derive(without('ngroups', 'd_state'))).to.throw(ConfigError, /groups × state size = 6.*ssm_cfg/);
  });

  it('accepts a vocabulary rounded up to its multiple', () => {
    const padded = shapesOf(randomTensors({ ...TINY_CONFIG, vocab_size: 16 }));
    expect(derive({ ...RAW, pad_vocab_size_multiple: 8 }, padded).vocab_size).to.equal(16);
    expect(() => derive({ ...RAW, pad_vocab_size_multiple: 5 }, padded)).to.throw(ConfigError, /15 rows.*has 16/);
  });

  it('says which tensor a size cannot be taken from', () => {
    const missing = tensors.filter(({ name }) => name !== 'backbone.layers.0.mixer.conv1d.weight');
    expect(() => derive(RAW, shapesOf(missing))).to.throw(
      CheckpointError,
      /layers\.0\.mixer\.conv1d\.weight is missing/,
    );
  });
});

describe('models that are no plain Mamba-2', () => {
  const layer = 'backbone.layers.1.mixer';
  const cases: [string, Config, OutTensor[], RegExp][] = [
    ['attention layers by config', { ...RAW, attn_layer_idx: [1] }, [], /attn_layer_idx.*attention/],
    ['attention layers by weights', RAW, [zeros(`${layer}.Wqkv.weight`, [24, 8])], /Wqkv.*attention/],
    ['MLP blocks by config', { ...RAW, d_intermediate: 32 }, [], /d_intermediate.*MLP/],
    ['MLP blocks by weights', RAW, [zeros('backbone.layers.0.mlp.fc1.weight', [32, 8])], /mlp.*MLP block/],
    ['Mamba-1 by config', ssm({ layer: 'Mamba1' }), [], /Mamba1/],
    ['Mamba-1 by weights', RAW, [zeros(`${layer}.x_proj.weight`, [4, 16])], /x_proj.*Mamba-1/],
    ['D with head dim', ssm({ D_has_hdim: true }), [], /D_has_hdim/],
    ['norm before gate', ssm({ norm_before_gate: true }), [], /norm_before_gate/],
    ['norm before gate beside ssm_cfg', { ...RAW, norm_before_gate: true }, [], /norm_before_gate/],
    ["norm before gate of flash-linear-attention's", fla({ norm_before_gate: true }), [], /norm_before_gate/],
    ["a mixer without norm of flash-linear-attention's", fla({ rmsnorm: false }), [], /rmsnorm/],
    ["D with head dim of flash-linear-attention's", fla({ D_has_hdim: true }), [], /D_has_hdim/],
    ['another activation', { ...TINY_CONFIG, hidden_act: 'gelu' }, [], /hidden_act is "gelu"/],
    ['another kind of mixer', ssm({ layer: 'Mamba3' }), [], /layer is "Mamba3"/],
    ['attention layers that are no list', { ...RAW, attn_layer_idx: 3 }, [], /attn_layer_idx is 3/],
    ['a mixer without norm', ssm({ rmsnorm: false }), [], /rmsnorm/],
    ['an inner MLP', ssm({ d_ssm: 8 }), [], /d_ssm.*8/],
    ['LayerNorm by config', { ...RAW, rms_norm: false }, [], /rms_norm/],
    ['LayerNorm by weights', RAW, [zeros('backbone.norm_f.bias', [8])], /norm_f\.bias.*LayerNorm/],
    ['learnt initial states', RAW, [zeros(`${layer}.init_states`, [4, 4, 3])], /init_states/],
  ];
  for (const [what, config, extra, message] of cases)
    it(`refuses ${what}`, () => {
      const all = shapesOf([...tensors, ...extra]);
      expect(() => refuseInexpressible(all, config, 'dir/config.json')).to.throw(ConfigError, message);
    });

  it('refuses Mamba-1 and D with head dim by shape', () => {
    const other = (name: string, shape: number[]): OutTensor[] =>
      tensors.map((t) => (t.name === name ? zeros(name, shape) : t));
    const decay = shapesOf(other('backbone.layers.0.mixer.A_log', [16, 3]));
    expect(() => derive(RAW, decay)).to.throw(ConfigError, /A_log.*Mamba-1/);
    const wide = shapesOf(other('backbone.layers.0.mixer.D', [16]));
    expect(() => derive(RAW, wide)).to.throw(ConfigError, /D_has_hdim/);
  });

  it('accepts what says the default', () => {
    const config = ssm({ D_has_hdim: false, norm_before_gate: false, rmsnorm: true, d_ssm: 16 });
    const plain = { ...config, attn_layer_idx: [], d_intermediate: 0, rms_norm: true };
    refuseInexpressible(shapesOf(tensors), plain, 'dir/config.json');
    refuseInexpressible(shapesOf(tensors), { ...TINY_CONFIG, norm_before_gate: false }, 'dir/config.json');
    refuseInexpressible(shapesOf(tensors), fla({ rmsnorm: true, D_has_hdim: false }), 'dir/config.json');
    // before weights are there nothing says what the whole of a mixer is
    refuseInexpressible(new Map(), config, 'dir/config.json');
  });
});

describe('config.json, by who wrote it', () => {
  const folder = folderForEach('config-json');
  const read = (config: Config): Config => huggingFaceConfig(config, 'dir/config.json');

  it("of transformers 4.44: keys that no version reads say nothing (Codestral's)", async () => {
    const text = fs.readFileSync('test/fixtures/configs/codestral_transformers_4_44.json', 'utf8');
    const written = parseConfigJson(text);
    expect(written.norm_before_gate).to.equal(true);
    const dir = folder();
    await saveCheckpoint(dir, {}, randomTensors(written));
    const logits: Float32Array[] = [];
    for (const changes of [{}, { norm_before_gate: false }, { rms_norm: false }]) {
      fs.writeFileSync(path.join(dir, 'config.json'), stringifyConfigJson({ ...written, ...changes }));
      await judgeConfig(mamba2Format, dir);
      const model = await Mamba2ForCausalLM.from_pretrained(dir, { device: 'cpu', engine: 'eager' });
      const output = model.forward({ input_ids: [[5, 17, 60, 2]] });
      logits.push((await output.logits.data()) as Float32Array);
      output.logits.dispose();
      output.cache?.dispose();
      model.dispose();
    }
    expect(logits[1]).to.deep.equal(logits[0]);
    expect(logits[2]).to.deep.equal(logits[0]);
  });

  it('of flash-linear-attention: its names, and its defaults', () => {
    const config = read(
      fla({ norm_eps: 1e-6, dt_limit: [0.01, 0.5], dt_min: 0.002, dt_max: 0.2, dt_init_floor: 0.003 }),
    );
    expect(config).to.deep.include({
      ...TINY_CONFIG,
      layer_norm_epsilon: 1e-6,
      time_step_limit: [0.01, 0.5],
      time_step_min: 0.002,
      time_step_max: 0.2,
      time_step_floor: 0.003,
    });
    expect(config).not.to.have.any.keys('norm_eps', 'dt_limit', 'dt_min', 'dt_max', 'dt_init_floor');
    expect(Mamba2Config.from_dict(config)).to.deep.include({ layer_norm_epsilon: 1e-6, time_step_limit: [0.01, 0.5] });
    expect(read({ model_type: 'mamba2', norm_eps: 1e-5 })).to.deep.include({
      n_groups: 1,
      num_heads: 64,
      hidden_size: 2048,
      num_hidden_layers: 48,
      vocab_size: 32000,
      eos_token_id: 2,
    });
    // before it had dt_limit
    expect(read(fla({ norm_eps: 1e-6, time_step_limit: [0, 2] })).time_step_limit).to.deep.equal([0, 2]);
  });

  it('of both: two names of one thing must agree', () => {
    expect(read(fla({ norm_eps: 1e-6, layer_norm_epsilon: 1e-6 })).layer_norm_epsilon).to.equal(1e-6);
    expect(() => read(fla({ norm_eps: 1e-6, layer_norm_epsilon: 1e-5 }))).to.throw(
      ConfigError,
      /dir\/config\.json: norm_eps is 0\.000001, but layer_norm_epsilon is 0\.00001/,
    );
  });

  it('of another model is no state-spaces model for having a d_model', () => {
    expect(() => mamba2Format.formatOf({ model_type: 't5', d_model: 8 }, 'dir/config.json')).to.throw(
      ConfigError,
      /t5/,
    );
    expect(mamba2Format.formatOf(RAW, 'dir/config.json')).to.equal('state-spaces');
  });

  it('has no sizes beyond reason', () => {
    expect(() => expectedTensors({ ...TINY_CONFIG, num_hidden_layers: 1e12 })).to.throw(
      ConfigError,
      /num_hidden_layers/,
    );
    expect(() => derive(ssm({ dt_limit: 3 }))).to.throw(ConfigError, /dt_limit is 3/);
    expect(() => derive({ ...RAW, vocab_size: '11' })).to.throw(ConfigError, /vocab_size is "11"/);
  });
});

describe('tensor names', () => {
  it('become those of Hugging Face', () => {
    for (const [name, want] of [
      ['backbone.embedding.weight', 'backbone.embeddings.weight'],
      ['model.backbone.embedding.weight', 'backbone.embeddings.weight'],
      ['model.lm_head.weight', 'lm_head.weight'],
      ['module._orig_mod.backbone.norm_f.weight', 'backbone.norm_f.weight'],
      ['layers.3.mixer.D', 'backbone.layers.3.mixer.D'],
      ['embeddings.weight', 'backbone.embeddings.weight'],
      ['backbone.embeddings.weight', 'backbone.embeddings.weight'],
    ] as const)
      expect(huggingFaceName(name)).to.equal(want);
  });

  it('must stay apart', () => {
    const both = containerOf([zeros('backbone.embedding.weight', [1]), zeros('backbone.embeddings.weight', [1])]);
    expect(() => withHuggingFaceNames(mamba2Format, both)).to.throw(
      CheckpointError,
      /both backbone\.embeddings\.weight/,
    );
  });

  it("of MLX come with their convolution's axes swapped back", () => {
    const name = 'backbone.layers.0.mixer.conv1d.weight';
    const renamed = withHuggingFaceNames(mamba2Format, containerOf([zeros(name, [28, 4, 1])]));
    expect(renamed.get(name)!.shape).to.deep.equal([28, 1, 4]);
  });
});

describe('the head', () => {
  const tied = { ...TINY_CONFIG, tie_word_embeddings: true };
  const body = randomTensors(tied);
  const embeddings = body.find(({ name }) => name === 'backbone.embeddings.weight')!;

  it('is tied when absent or equal, and wins with a warning when it has diverged', async () => {
    expect(await validateCheckpoint(checkpoint(tied, body))).to.deep.equal({ tied: true, warnings: [] });
    const equal = { ...embeddings, name: 'lm_head.weight' };
    expect(await validateCheckpoint(checkpoint(tied, [...body, equal]))).to.deep.equal({ tied: true, warnings: [] });
    const report = await validateCheckpoint(checkpoint(tied, [...body, zeros('lm_head.weight', [11, 8])]));
    expect(report.tied).to.equal(false);
    expect(report.warnings.join()).to.match(/lm_head\.weight differs/);
  });

  it('must be there when it is not tied, and have the shape of the embeddings', async () => {
    for (const [config, list, message] of [
      [TINY_CONFIG, body, /lm_head\.weight is missing/],
      [tied, [...body, zeros('lm_head.weight', [10, 8])], /lm_head\.weight.*\[10, 8\].*\[11, 8\]/],
      [tied, [...body, zeros('lm_head.bias', [11])], /lm_head\.bias.*no place/],
    ] as const) {
      const error = await validateCheckpoint(checkpoint(config, list)).catch((e: unknown) => e);
      expect(error).to.be.instanceOf(CheckpointError);
      expect((error as Error).message).to.match(message);
    }
  });
});

describe('agreement of weights and configuration', () => {
  it('lists the tensors of the golden model', () => {
    const { config, dir } = loadGolden('g1-forward');
    const expected = expectedTensors(config);
    return openCheckpoint(dir).then(async (source) => {
      const got = [...source.tensors.values()].map(({ name, shape }) => [name, shape]);
      expect(Object.fromEntries(got)).to.deep.equal(Object.fromEntries(expected));
      await source.close();
    });
  });

  it('counts the parameters of the published models', () => {
    const count = (config: Record<string, unknown>): number =>
      [...expectedTensors(config).values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
    expect(count({})).to.equal(7_285_403_648);
    const small = { num_hidden_layers: 24, hidden_size: 768, num_heads: 24, n_groups: 1, vocab_size: 50288 };
    expect(count({ ...small, tie_word_embeddings: true })).to.equal(128_989_632);
  });

  it('refuses configurations that contradict themselves', () => {
    for (const config of [{ num_heads: 7 }, { hidden_size: 1.5 }, { n_groups: 3 }, { use_bias: 'no' }, { expand: -1 }])
      expect(() => expectedTensors(config), JSON.stringify(config)).to.throw(ConfigError, Object.keys(config)[0]);
  });
});
