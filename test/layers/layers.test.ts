/** Every layer against the oracle, on every backend (see test/support/layer_tests.ts). */
import { expect } from 'chai';
import * as tf from '@tensorflow/tfjs';
import { Mamba2Block } from '../../src/layers/block.js';
import { CausalConv1D } from '../../src/layers/causal_conv1d.js';
import { LMHead, TokenEmbedding } from '../../src/layers/embedding.js';
import { Mamba2Mixer } from '../../src/layers/mixer.js';
import type { Mamba2MixerArgs } from '../../src/layers/mixer_spec.js';
import { RMSNorm } from '../../src/layers/rms_norm.js';
import { RMSNormGated } from '../../src/layers/rms_norm_gated.js';
import { useBackend } from '../support/backends.js';
import { thrown } from '../support/errors.js';
import { runLayerTest } from '../support/layer_tests.js';
import * as oracle from '../support/oracle.js';
import { ArgumentError, ConfigError } from '../../src/base/errors.js';

runLayerTest({
  title: 'a large epsilon',
  layer: RMSNorm,
  args: { size: 6, epsilon: 0.1 },
  inputs: [[2, 3, 6]],
  outputShape: [2, 3, 6],
  weights: ['weight'],
  oracle: (w, [x]) => oracle.rmsNorm(x!, w['weight']!, 0.1),
});

for (const normGroups of ['per_group', 'full'] as const) {
  runLayerTest({
    title: `normGroups ${normGroups}`,
    layer: RMSNormGated,
    args: { size: 12, groups: 3, normGroups, epsilon: 1e-3 },
    inputs: [
      [2, 3, 12],
      [2, 3, 12],
    ],
    outputShape: [2, 3, 12],
    weights: ['weight'],
    oracle: (w, [y, z]) => oracle.rmsNormGated(y!, z!, w['weight']!, 1e-3, normGroups === 'full' ? 1 : 3),
  });
}

for (const [useBias, activation, kernelSize] of [
  [true, 'silu', 4],
  [false, null, 3],
  [true, null, 1],
] as const) {
  runLayerTest({
    title: `${kernelSize} taps, ${useBias ? 'bias' : 'no bias'}, activation ${activation}`,
    layer: CausalConv1D,
    args: { channels: 5, kernelSize, useBias, activation },
    inputs: [[2, 6, 5]],
    outputShape: [2, 6, 5],
    weights: useBias ? ['weight', 'bias'] : ['weight'],
    oracle: (w, [x]) => {
      const y = oracle.eachRow(x!, (row) => oracle.causalConv(row, w['weight']!, w['bias']).y);
      return activation ? oracle.arr(y.shape, y.data.map(oracle.silu)) : y;
    },
  });
}

/** Mixers that differ in what a mistake could hide behind: groups, biases, limits, chunks shorter than the text. */
const MIXERS: { title: string; args: Mamba2MixerArgs }[] = [
  { title: 'one group', args: { hiddenSize: 4, numHeads: 2, headDim: 3, stateSize: 3, chunkSize: 4 } },
  {
    title: 'two groups, biases, a limit on dt that bites on both sides',
    args: {
      hiddenSize: 4,
      numHeads: 4,
      headDim: 2,
      nGroups: 2,
      stateSize: 3,
      convKernel: 3,
      chunkSize: 2,
      useBias: true,
      timeStepLimit: [0.4, 0.9],
    },
  },
  {
    title: 'a group for each head, norm over all channels, no convolution bias',
    args: {
      hiddenSize: 3,
      numHeads: 2,
      headDim: 2,
      nGroups: 2,
      stateSize: 2,
      normGroups: 'full',
      useConvBias: false,
      chunkSize: 16,
    },
  },
];

function mixerWeights(args: Mamba2MixerArgs, prefix = ''): string[] {
  const names = [
    'dt_bias',
    'A_log',
    'D',
    'conv1d.weight',
    'conv1d.bias',
    'in_proj.weight',
    'in_proj.bias',
    'norm.weight',
    'out_proj.weight',
    'out_proj.bias',
  ];
  return names
    .filter((name) => name.startsWith('conv1d') || !name.endsWith('.bias') || args.useBias)
    .filter((name) => name !== 'conv1d.bias' || args.useConvBias !== false)
    .map((name) => prefix + name);
}

for (const { title, args } of MIXERS) {
  const shape = [2, 5, args.hiddenSize];
  runLayerTest({
    title,
    layer: Mamba2Mixer,
    args,
    inputs: [shape],
    outputShape: shape,
    weights: mixerWeights(args),
    oracle: (w, [u]) => oracle.eachRow(u!, (row) => oracle.mixer(new Mamba2Mixer(args).spec, w, row).y),
  });
  runLayerTest({
    title,
    layer: Mamba2Block,
    args,
    inputs: [shape],
    outputShape: shape,
    weights: ['norm.weight', ...mixerWeights(args, 'mixer.')],
    oracle: (w, [h]) => oracle.eachRow(h!, (row) => oracle.block(new Mamba2Mixer(args).spec, w, row).y),
  });
}

runLayerTest({
  title: 'ids to vectors',
  layer: TokenEmbedding,
  args: { vocabSize: 7, hiddenSize: 3 },
  inputs: [[2, 4]],
  ids: 7,
  outputShape: [2, 4, 3],
  weights: ['weight'],
  oracle: (w, [ids]) => oracle.eachRow(ids!, (row) => oracle.embed([...row.data], w['weight']!)),
  forwardOnly: ['wasm'], // no UnsortedSegmentSum
});

runLayerTest({
  title: 'in reverse: a tied head',
  layer: TokenEmbedding,
  args: { vocabSize: 7, hiddenSize: 3 },
  inputs: [[2, 4, 3]],
  kwargs: { reverse: true },
  outputShape: [2, 4, 7],
  weights: ['weight'],
  oracle: (w, [h]) => oracle.linear(h!, w['weight']!),
});

runLayerTest({
  title: 'hidden states to logits',
  layer: LMHead,
  args: { vocabSize: 7, hiddenSize: 3 },
  inputs: [[2, 4, 3]],
  outputShape: [2, 4, 7],
  weights: ['weight'],
  oracle: (w, [h]) => oracle.linear(h!, w['weight']!),
});

describe('layers refuse what does not fit', () => {
  before(() => useBackend('cpu'));
  const base = { hiddenSize: 4, numHeads: 4, headDim: 2 };

  for (const [key, value] of [
    ['hiddenSize', 0],
    ['numHeads', 1.5],
    ['headDim', -1],
    ['nGroups', 3],
    ['stateSize', 0],
    ['convKernel', 0],
    ['chunkSize', NaN],
    ['timeStepLimit', [2, 1]],
    ['epsilon', -1],
  ] as const) {
    it(`a mixer with ${key} ${String(value)}`, () => {
      const error = thrown(() => new Mamba2Mixer({ ...base, [key]: value }));
      expect(error).to.be.instanceOf(ConfigError);
      expect(error.message)
        .to.contain(key)
        .and.to.contain(String(Array.isArray(value) ? value[0] : value));
    });
  }

  it('an input of another width', () => {
    const mixer = new Mamba2Mixer(base);
    const x = tf.ones([1, 2, 5]);
    expect(thrown(() => mixer.apply(x)))
      .to.be.instanceOf(ArgumentError)
      .with.property('message')
      .that.contains('[1,2,5]');
    mixer.dispose();
    x.dispose();
  });

  it('groups that do not divide a gated norm, and a single input', () => {
    expect(thrown(() => new RMSNormGated({ size: 8, groups: 3 }))).to.be.instanceOf(ArgumentError);
    expect(thrown(() => new RMSNormGated({ size: 8, normGroups: 'each' as never })).message).to.contain('each');
    const norm = new RMSNormGated({ size: 4 });
    const x = tf.ones([1, 4]);
    expect(thrown(() => norm.apply(x)).message).to.contain('two inputs');
    norm.dispose();
    x.dispose();
  });
});

describe('fresh weights', () => {
  before(() => useBackend('cpu'));

  it('of a mixer follow transformers', () => {
    const mixer = new Mamba2Mixer({
      hiddenSize: 8,
      numHeads: 64,
      headDim: 2,
      stateSize: 4,
      initializerRange: 0.1,
      outProjDivisor: 2,
    });
    mixer.build([1, 1, 8]);
    const w = Object.fromEntries(
      Object.entries(mixer.weightMap()).map(([name, v]) => [name, [...(v as tf.Tensor).dataSync()]]),
    );
    const largest = (values: number[]): number => Math.max(...values.map(Math.abs));
    w['A_log']!.forEach((v, i) => expect(v).to.be.closeTo(Math.log(i + 1), 1e-6));
    expect(new Set(w['D'])).to.deep.equal(new Set([1]));
    expect(new Set(w['norm.weight'])).to.deep.equal(new Set([1]));
    expect(new Set(w['conv1d.bias'])).to.deep.equal(new Set([0]));
    w['dt_bias']!.forEach((v) => expect(oracle.softplus(v)).to.be.within(1e-3 * 0.99, 0.1 * 1.01));
    expect(largest(w['conv1d.weight']!)).to.be.within(0.4, 0.5);
    const bound = 1 / Math.sqrt(128) / 2;
    expect(largest(w['out_proj.weight']!)).to.be.within(bound * 0.9, bound);
    const proj = w['in_proj.weight']!;
    expect(Math.sqrt(proj.reduce((s, v) => s + v * v, 0) / proj.length)).to.be.closeTo(0.1, 0.01);
    mixer.dispose();
  });

  it('of an embedding have the spread asked for', () => {
    const layer = new TokenEmbedding({ vocabSize: 100, hiddenSize: 20, initializerRange: 0.3 });
    layer.build([1, 1]);
    const values = [...(layer.weightMap()['weight'] as tf.Tensor).dataSync()];
    expect(Math.sqrt(values.reduce((s, v) => s + v * v, 0) / values.length)).to.be.closeTo(0.3, 0.03);
    layer.dispose();
  });
});

describe('arguments of layers', () => {
  const layers = {
    Mamba2Mixer: (args: object) => new Mamba2Mixer({ hiddenSize: 8, numHeads: 2, headDim: 8, ...args }),
    Mamba2Block: (args: object) => new Mamba2Block({ hiddenSize: 8, numHeads: 2, headDim: 8, ...args }),
    RMSNorm: (args: object) => new RMSNorm({ size: 8, ...args }),
    RMSNormGated: (args: object) => new RMSNormGated({ size: 8, ...args }),
    CausalConv1D: (args: object) => new CausalConv1D({ channels: 8, ...args }),
    TokenEmbedding: (args: object) => new TokenEmbedding({ vocabSize: 8, hiddenSize: 4, ...args }),
    LMHead: (args: object) => new LMHead({ vocabSize: 8, hiddenSize: 4, ...args }),
  };

  it('are those of tfjs and their own; others are refused, with the name here', () => {
    for (const [name, make] of Object.entries(layers)) {
      const layer = make({ name: `of_${name}`, trainable: false, dtype: 'float32', batchSize: 2, inputShape: [3, 8] });
      expect(layer.name).to.equal(`of_${name}`);
      // what a saved layer has is taken again
      const { className } = layer.constructor as unknown as { className: string };
      expect(layer.getClassName()).to.equal(className);
      expect(make(JSON.parse(JSON.stringify(layer.getConfig())) as object).getConfig()).to.deep.equal(
        layer.getConfig(),
      );
      expect(() => make({ nmae: 'x' }), name).to.throw(ConfigError, /no option nmae/);
    }
    for (const [make, args, message] of [
      [layers.Mamba2Mixer, { hidden_size: 8 }, /It is called hiddenSize here/],
      [layers.Mamba2Block, { d_state: 8 }, /It is called stateSize here/],
      [layers.Mamba2Mixer, { expand: 2 }, /numHeads · headDim is the inner width/],
      [layers.TokenEmbedding, { hidden_size: 8 }, /It is called hiddenSize here/],
      [layers.RMSNorm, { eps: 1e-6 }, /It is called epsilon here/],
      [layers.CausalConv1D, { kernel_size: 3 }, /It is called kernelSize here/],
      [layers.Mamba2Mixer, { numHeads: 2.5 }, /numHeads is 2.5; expected an integer of 1 or more/],
      [layers.Mamba2Mixer, { timeStepLimit: [2, 1] }, /timeStepLimit is \[2,1\]; expected two numbers/],
      [layers.RMSNorm, { size: undefined }, /needs size/],
      [layers.CausalConv1D, { activation: 'relu' }, /expected 'silu' or null/],
    ] as const)
      expect(() => make(args), String(message)).to.throw(ConfigError, message);
  });
});
