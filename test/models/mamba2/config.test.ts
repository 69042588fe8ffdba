/** Mamba2Config: what it accepts, what it refuses and names, what it writes back. */
import { expect } from 'chai';
import { ConfigError } from '../../../src/base/errors.js';
import { parseConfigJson } from '../../../src/checkpoints/config_json.js';
import { Mamba2Config } from '../../../src/models/mamba2/config.js';
import { thrown } from '../../support/errors.js';
import { TINY } from '../../support/tiny_model.js';

const make = (changes: Record<string, unknown> = {}): Mamba2Config => new Mamba2Config({ ...TINY, ...changes });

describe('Mamba2Config', () => {
  it("has transformers' defaults", () => {
    const config = new Mamba2Config();
    expect(config).to.include({
      num_heads: 128,
      head_dim: 64,
      vocab_size: 32768,
      hidden_size: 4096,
      state_size: 128,
      num_hidden_layers: 64,
      layer_norm_epsilon: 1e-5,
      pad_token_id: 1,
      bos_token_id: 0,
      eos_token_id: 2,
      expand: 2,
      conv_kernel: 4,
      n_groups: 8,
      use_bias: false,
      use_conv_bias: true,
      hidden_act: 'silu',
      initializer_range: 0.1,
      time_step_min: 0.001,
      time_step_max: 0.1,
      time_step_floor: 0.0001,
      rescale_prenorm_residual: false,
      chunk_size: 256,
      tie_word_embeddings: false,
      norm_groups: 'per_group',
      model_type: 'mamba2',
    });
    expect(config.time_step_limit).to.deep.equal([0, Infinity]);
    expect(config.inner_size).to.equal(8192);
  });

  const BAD: Record<string, unknown[]> = {
    num_heads: [0, -4, 2.5, '4', null, NaN],
    head_dim: [0, 1.5, null],
    vocab_size: [0, -1, '11'],
    hidden_size: [0, 6.5],
    state_size: [0, null],
    num_hidden_layers: [0, -2, 1.5],
    conv_kernel: [0, 2.5],
    n_groups: [0, 3, -2],
    chunk_size: [0, 1.5],
    expand: [0, -2, '2', NaN],
    layer_norm_epsilon: [0, -1e-5, '1e-5', NaN, Infinity],
    initializer_range: [0, -1, null],
    time_step_min: [0, 'small'],
    time_step_max: [-1],
    time_step_floor: [0],
    time_step_limit: [[1], [2, 1], 'auto', [0, 'x'], [NaN, 1], [0, 1, 2], null, [-1, -0.5]],
    hidden_act: ['gelu', 'relu', null, 3],
    norm_groups: ['each', true],
    use_bias: [1, 'true', null],
    use_conv_bias: [0],
    residual_in_fp32: ['yes'],
    rescale_prenorm_residual: [1],
    use_cache: ['no'],
    tie_word_embeddings: [0],
    pad_token_id: [1.5, '1', [1]],
    bos_token_id: [0.5, true],
    eos_token_id: ['2', [1, 'x'], 1.5],
  };
  for (const [key, values] of Object.entries(BAD)) {
    for (const value of values) {
      it(`refuses ${key} ${JSON.stringify(value)}`, () => {
        const error = thrown(() => make({ [key]: value })) as ConfigError;
        expect(error).to.be.instanceOf(ConfigError);
        expect(error.message).to.contain(`${key} is`).and.to.contain('expected');
        expect(error.data).to.include({ key });
      });
    }
  }

  for (const sizes of [
    { hidden_size: 2, num_heads: 4, expand: 2, head_dim: 4 },
    { hidden_size: 4, num_heads: 2, expand: 4, head_dim: 2 },
  ]) {
    it(`refuses sizes that contradict each other: ${JSON.stringify(sizes)}`, () => {
      const { message } = thrown(() => make({ ...sizes, n_groups: 1 }));
      expect(message).to.contain('num_heads·head_dim').and.to.contain('expand·hidden_size');
    });
  }
  for (const sizes of [
    { hidden_size: 2, num_heads: 2, expand: 2, head_dim: 2 },
    { hidden_size: 4, num_heads: 4, expand: 2, head_dim: 2 },
    { hidden_size: 2, num_heads: 4, expand: 4, head_dim: 2 },
  ]) {
    it(`accepts ${JSON.stringify(sizes)}`, () =>
      expect(make({ ...sizes, n_groups: 1 }).inner_size).to.equal(sizes.num_heads * sizes.head_dim));
  }

  it('refuses another model type and a LayerNorm model', () => {
    expect(thrown(() => make({ model_type: 'mamba' })))
      .to.be.instanceOf(ConfigError)
      .with.property('message')
      .that.contains("'mamba'");
    expect(thrown(() => make({ rms_norm: false })))
      .to.be.instanceOf(ConfigError)
      .with.property('message')
      .that.contains('rms_norm');
    expect(make({ rms_norm: true }).extra).to.deep.equal({ rms_norm: true });
  });

  for (const text of ['Infinity', '"Infinity"', '{"__float__": "Infinity"}', '1e999']) {
    it(`reads an unbounded limit written as ${text}`, () => {
      const json = parseConfigJson(`{"time_step_limit": [0.0, ${text}]}`, 'config.json');
      expect(make(json).time_step_limit).to.deep.equal([0, Infinity]);
    });
  }

  it('refuses a key that it does not know, with the one that was meant', () => {
    for (const [name, meant] of [
      ['hiden_size', 'hidden_size'],
      ['hiddenSize', 'hidden_size'],
      ['d_model', 'hidden_size'],
      ['headdim', 'head_dim'],
      ['rms_norm_eps', 'layer_norm_epsilon'],
      ['no_such_key', ''],
    ] as const) {
      const error = thrown(() => make({ [name]: 4 })) as ConfigError;
      expect(error).to.be.instanceOf(ConfigError);
      expect(error.message).to.include(`no option ${name}`).and.include(meant);
    }
  });

  it('keeps keys of a file that it does not know, and writes them back', () => {
    const extra = {
      transformers_version: '4.57.6',
      norm_before_gate: false,
      nested: { a: [1, 2] },
      time_step_rank: 'auto',
    };
    const config = Mamba2Config.from_dict({ ...TINY, ...extra });
    expect(config.extra).to.deep.equal(extra);
    expect(config.to_dict()).to.deep.include(extra);
  });

  it('comes back from to_dict, and from it as JSON when the limit is finite', () => {
    const config = Mamba2Config.from_dict({
      ...TINY,
      time_step_limit: [0.01, 2],
      eos_token_id: [2, 3],
      pad_token_id: null,
      other: 'x',
      norm_groups: 'full',
    });
    const again = (values: unknown): Mamba2Config => Mamba2Config.from_dict(values as Record<string, unknown>);
    expect(again(config.to_dict()).to_dict()).to.deep.equal(config.to_dict());
    expect(again(JSON.parse(JSON.stringify(config.to_dict()))).to_dict()).to.deep.equal(config.to_dict());
    expect(again(config.to_dict())).to.deep.equal(again({ ...config.to_dict() }));
    const own = make();
    expect(new Mamba2Config(own.to_dict()).to_dict()).to.deep.equal(own.to_dict());
  });

  it('does not change or keep hold of what it was given', () => {
    const limit: [number, number] = [0, 5];
    const config = make({ time_step_limit: limit });
    limit[1] = 7;
    expect(config.time_step_limit).to.deep.equal([0, 5]);
  });

  it('takes an undefined value for an absent one', () => {
    expect(make({ eos_token_id: undefined }).eos_token_id).to.equal(2);
  });

  it('gives the ids that end a text as a list', () => {
    expect(make({ eos_token_id: 4 }).eos_token_ids).to.deep.equal([4]);
    expect(make({ eos_token_id: [4, 5] }).eos_token_ids).to.deep.equal([4, 5]);
    expect(make({ eos_token_id: null }).eos_token_ids).to.deep.equal([]);
  });

  it('gives its mixer every setting', () => {
    const config = make({
      time_step_limit: [0.1, 3],
      norm_groups: 'full',
      layer_norm_epsilon: 0.01,
      rescale_prenorm_residual: true,
      num_hidden_layers: 9,
      use_conv_bias: false,
      initializer_range: 0.2,
    });
    expect(config.mixerArgs()).to.deep.include({
      hiddenSize: 6,
      numHeads: 4,
      headDim: 3,
      nGroups: 2,
      stateSize: 4,
      convKernel: 4,
      chunkSize: 4,
      useBias: true,
      useConvBias: false,
      epsilon: 0.01,
      timeStepLimit: [0.1, 3],
      normGroups: 'full',
      initializerRange: 0.2,
      outProjDivisor: 3,
    });
  });
});
