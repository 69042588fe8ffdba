/** Configuration classes, their form in config.json, and the choice of what is quantised. */
import { expect } from 'chai';
import { ConfigError } from '../../src/base/errors.js';
import type { WeightRole } from '../../src/layers/index.js';
import {
  Int4WeightOnlyConfig,
  Int8WeightOnlyConfig,
  planQuantization,
  quantizationConfig,
  quantizationFromDict,
  quantizationToDict,
  TorchAoConfig,
} from '../../src/quant/index.js';
import { thrown } from '../support/errors.js';

const weights: { name: string; shape: number[]; role: WeightRole }[] = [
  { name: 'backbone.embeddings.weight', shape: [67, 128], role: 'embedding' },
  { name: 'backbone.layers.0.norm.weight', shape: [128], role: 'small' },
  { name: 'backbone.layers.0.mixer.conv1d.weight', shape: [288, 1, 4], role: 'small' },
  { name: 'backbone.layers.0.mixer.in_proj.weight', shape: [552, 128], role: 'projection' },
  { name: 'backbone.layers.0.mixer.out_proj.weight', shape: [128, 256], role: 'projection' },
  { name: 'backbone.layers.1.mixer.in_proj.weight', shape: [552, 128], role: 'projection' },
  { name: 'backbone.layers.1.mixer.out_proj.weight', shape: [128, 256], role: 'projection' },
  { name: 'lm_head.weight', shape: [67, 128], role: 'head' },
];
const names = (config: Int4WeightOnlyConfig | Int8WeightOnlyConfig): string[] => [
  ...planQuantization(weights, config).names,
];

describe('quantisation configuration', () => {
  it('TorchAoConfig as the documentation of transformers writes it', () => {
    const config = quantizationConfig(new TorchAoConfig('int4_weight_only', { group_size: 64 }));
    expect(config).to.be.instanceOf(Int4WeightOnlyConfig);
    expect((config as Int4WeightOnlyConfig).group_size).to.equal(64);
    expect(new TorchAoConfig(new Int8WeightOnlyConfig()).quant_type.bits).to.equal(8);
  });

  for (const group of [0, 48, 33, -128, 512, 1.5, NaN]) {
    it(`refuses group_size ${group}`, () => {
      const error = thrown(() => new Int4WeightOnlyConfig({ group_size: group }));
      expect(error).to.be.instanceOf(ConfigError);
      expect(error.message).to.match(/group_size is .*expected one of 32, 64, 128, 256/);
    });
  }

  it('refuses unknown options, kinds and values by name', () => {
    expect(thrown(() => new Int4WeightOnlyConfig({ groupsize: 32 } as never)).message).to.match(
      /no option groupsize\. It is called group_size here/,
    );
    expect(thrown(() => new Int8WeightOnlyConfig({ group_size: 32 } as never)).message).to.match(
      /group_size: 32, which is not supported/,
    );
    expect(thrown(() => new TorchAoConfig('int2_weight_only' as never)).message).to.match(/int2_weight_only/);
    expect(thrown(() => new Int4WeightOnlyConfig({ rounding: 'best' as never })).message).to.match(
      /'minmax' or 'search'/,
    );
    expect(thrown(() => quantizationConfig({ bits: 4 } as never))).to.be.instanceOf(ConfigError);
  });

  it('survives config.json', () => {
    for (const config of [
      new Int4WeightOnlyConfig({
        group_size: 32,
        rounding: 'search',
        activation_quantization: false,
        scale_dtype: 'float32',
        include_input_output_embeddings: true,
        modules_to_not_convert: ['layers.0', /out_proj/],
      }),
      new Int8WeightOnlyConfig({ modules_to_not_convert: ['in_proj'] }),
    ]) {
      const json = JSON.parse(JSON.stringify(quantizationToDict(config))) as unknown;
      expect(quantizationFromDict(json)).to.deep.equal(config);
    }
  });

  it('keeps the flags of regular expressions in config.json: what is skipped now is skipped after reading', () => {
    const patterns = [/IN_PROJ/i, /layers\.0\..*proj/, /^LAYERS\.1|^Backbone\.layers\.1/im, /\u{6c}m_head/u];
    const config = new Int8WeightOnlyConfig({
      modules_to_not_convert: ['lm_head', ...patterns],
      include_input_output_embeddings: true,
    });
    const json = JSON.stringify(quantizationToDict(config));
    const read = quantizationFromDict(JSON.parse(json));
    expect(read).to.deep.equal(config);
    expect(read.modules_to_not_convert.slice(1).map(String)).to.deep.equal(patterns.map(String));
    expect(names(read)).to.deep.equal(names(config)).and.to.deep.equal(['backbone.embeddings.weight']);
    for (const bad of ['(', { source: 'a', flags: 'q' }, { flags: 'i' }, 3]) {
      const record = { ...quantizationToDict(config), tfjs_mamba2: { patterns_to_not_convert: [bad] } };
      expect(thrown(() => quantizationFromDict(record))).to.be.instanceOf(ConfigError);
    }
    expect(json).to.include('"layers\\\\.0\\\\..*proj"');
  });

  it('reads what transformers writes, and refuses other methods and packings', () => {
    const written = {
      quant_method: 'torchao',
      quant_type: {
        default: {
          _type: 'Int4WeightOnlyConfig',
          _version: 2,
          _data: { group_size: 64, int4_packing_format: { _type: 'Int4PackingFormat', _data: 'PLAIN' } },
        },
      },
      modules_to_not_convert: ['lm_head'],
      include_input_output_embeddings: false,
      untie_embedding_weights: false,
    };
    const read = quantizationFromDict(written) as Int4WeightOnlyConfig;
    expect(read.group_size).to.equal(64);
    expect(read.modules_to_not_convert).to.deep.equal(['lm_head']);
    written.quant_type.default._data.int4_packing_format._data = 'TILE_PACKED_TO_4D';
    expect(thrown(() => quantizationFromDict(written)).message).to.match(/TILE_PACKED_TO_4D/);
    expect(thrown(() => quantizationFromDict({ quant_method: 'gptq' })).message).to.match(/"gptq"/);
  });
});

describe('what is quantised', () => {
  it('in_proj and out_proj; embedding and head on request', () => {
    expect(names(new Int4WeightOnlyConfig()))
      .to.have.length(4)
      .and.to.satisfy((all: string[]) => all.every((n) => /proj/.test(n)));
    expect(names(new Int4WeightOnlyConfig({ include_input_output_embeddings: true }))).to.have.length(6);
  });

  it('leaves out modules by name, end, pattern and regular expression', () => {
    const without = (...skip: (string | RegExp)[]): string[] =>
      names(new Int8WeightOnlyConfig({ modules_to_not_convert: skip }));
    expect(without('backbone.layers.0')).to.have.length(2);
    expect(without('in_proj')).to.have.length(2);
    expect(without('layers.*.mixer.in_proj')).to.have.length(2);
    expect(without('proj')).to.have.length(4);
    expect(without(/layers\.1/)).to.have.length(2);
    // a place to go on from, which g and y keep, would pass over names
    expect(without(/in_proj/g)).to.deep.equal(without(/in_proj/));
    const given = /backbone\.layers\.0/gy;
    expect(without(given)).to.deep.equal(without(/^backbone\.layers\.0/));
    expect(given.lastIndex).to.equal(0);
    expect(without(/layers\.0/y)).to.have.length(4);
  });

  it('skips what the groups do not divide, and says so', () => {
    const { names: kept, skipped } = planQuantization(weights, new Int4WeightOnlyConfig({ group_size: 256 }));
    expect(kept).to.have.length(2);
    expect(skipped.find(({ name }) => name.includes('0.mixer.in_proj'))!.reason).to.match(/128 .* 256/);
    const small = weights.filter(({ name }) => !name.includes('out_proj'));
    const error = thrown(() => planQuantization(small, new Int4WeightOnlyConfig({ group_size: 256 })));
    expect(error).to.be.instanceOf(ConfigError);
    expect(error.message).to.match(/Nothing to quantise.*\n.*128 input channels/);
  });
});
