/** A decoding step of one row or a few as a GPU runs it: the layers' kernels in plain loops, against the layers themselves. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { castFloat32, castTo } from '../../src/jit/index.js';
import { withKernelRunner } from '../../src/jit/custom_call/triton.js';
import type { LayerState } from '../../src/engine/recurrent_lm.js';
import { bfloat16Storage } from '../../src/layers/storage.js';
import { isMatrix, type Weight, type Weights } from '../../src/layers/weights.js';
import { Mamba2Config, type Mamba2ConfigFields } from '../../src/models/mamba2/config.js';
import { Mamba2Network } from '../../src/models/mamba2/network.js';
import { useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { interpretKernels } from '../../src/kernels/interpret/runner.js';
import { randomArr, toTensor } from '../support/oracle.js';
import { lcg } from '../support/random.js';

const SIZES: Partial<Mamba2ConfigFields> = {
  vocab_size: 19,
  hidden_size: 32,
  num_heads: 2,
  head_dim: 32,
  state_size: 16,
  n_groups: 1,
  num_hidden_layers: 2,
  conv_kernel: 4,
  chunk_size: 4,
  tie_word_embeddings: false,
};

describe('a decoding step on a GPU', () => {
  before(() => useBackend('tensorflow'));

  /** One step; `narrow`: matrices and states in bfloat16. */
  function compare(change: Partial<Mamba2ConfigFields>, rows: number, off: number[], narrow: boolean): string[] {
    const config = new Mamba2Config({ ...SIZES, ...change });
    const network = new Mamba2Network(config);
    const random = lcg(5);
    const kernels: string[] = [];
    tf.tidy(() => {
      const rounded = (x: tf.Tensor): tf.Tensor => (narrow ? castFloat32(castTo(x, 'bfloat16')) : x);
      const [plain, stored]: Record<string, Weight>[] = [{}, {}];
      for (const spec of network.weightSpecs()) {
        const value = toTensor(randomArr(random, spec.shape, -0.4, 0.4));
        plain![spec.name] = isMatrix(spec) ? rounded(value) : value;
        const matrix = narrow && isMatrix(spec);
        stored![spec.name] = matrix ? bfloat16Storage(spec.shape).weight({ '': castTo(value, 'bfloat16') }) : value;
      }
      const { innerSize, convSize } = network.blocks[0]!.spec;
      const layers = config.num_hidden_layers;
      const contexts = toTensor(randomArr(random, [rows, layers, 3, convSize])) as tf.Tensor4D;
      const convs = tf.unstack(contexts, 1) as tf.Tensor3D[];
      const states = convs.map((conv): LayerState => {
        const ssm = rounded(toTensor(randomArr(random, [rows, config.num_heads, config.head_dim, config.state_size])));
        return { values: { conv, ssm } };
      });
      const mask = tf.tensor2d(Array.from({ length: rows }, (_, i) => [Number(!off.includes(i))]));
      const embedded = toTensor(randomArr(random, [rows, 1, config.hidden_size])) as tf.Tensor3D;
      const step = (
        weights: Weights,
        given: LayerState[],
      ): ReturnType<Mamba2Network['hidden']> & { logits: tf.Tensor } => {
        const options = { states: given, mask, mergeStep: true, withoutNorm: true };
        const out = network.hidden(weights, embedded, options);
        return {
          ...out,
          logits: network.normedHead(weights, tf.reshape(out.h, [rows, -1]) as tf.Tensor2D, out.handover),
        };
      };
      const want = step(plain!, states);
      const given = states.map((state, layer) => ({
        ...state,
        within: { conv: { layers: contexts, layer } },
        ...(narrow && { stored: { ssm: castTo(state.values.ssm!, 'bfloat16') } }),
      }));
      const got = withKernelRunner(interpretKernels(kernels), () => step(stored!, given));
      // rows that are switched off give nothing of meaning
      const real = (x: tf.Tensor): tf.Tensor => tf.mul(x, tf.reshape(mask, [rows, ...x.shape.slice(1).map(() => 1)]));
      // the gated vector is rounded to bfloat16 before its product
      const tolerance = narrow ? 0.01 : 2e-5;
      expectClose(real(got.logits), real(want.logits), tolerance);
      got.states.forEach(({ values, stored, within }, i) => {
        expectClose(values.ssm!, want.states[i]!.values.ssm!, tolerance);
        const conv = within ? tf.unstack(within.conv!.layers, 1)[i]! : values.conv!;
        expectClose(conv, want.states[i]!.values.conv!, tolerance);
        if (narrow && rows > 1) expect(stored?.ssm, 'the state as it is stored').not.to.equal(undefined);
      });
      expect(innerSize).to.equal(config.num_heads * config.head_dim);
    });
    return kernels;
  }

  it('of one row is two kernels a layer with what XLA makes between them, and the head', () => {
    const names = Array.from({ length: 5 }, () => 'one_row_product');
    for (const off of [[], [0]]) expect(compare({}, 1, off, true)).to.deep.equal(names);
    const change = { n_groups: 2, num_heads: 4, head_dim: 16, num_hidden_layers: 1 };
    expect(compare(change, 1, [], true)).to.deep.equal(names.slice(0, 3));
  });

  it('of one row has products in PTX where sizes allow it', () => {
    const change = { hidden_size: 256, num_heads: 8, head_dim: 64, num_hidden_layers: 1 };
    compare(change, 1, [], true);
  });

  it('of a few rows is three kernels a layer, and the head', () => {
    const layer = ['few_rows_product', 'ssm_step', 'few_rows_product'];
    expect(compare({}, 3, [1], true)).to.deep.equal([...layer, ...layer, 'few_rows_product']);
  });

  it('of a few rows is that too where norms are by group, of other sizes', () => {
    compare({ n_groups: 2, num_heads: 4, head_dim: 16, num_hidden_layers: 1, time_step_limit: [0.3, 1] }, 2, [], true);
  });

  it('of many rows has products of a library, and kernels between them', () => {
    const layer = ['few_rows_epilogue', 'ssm_step', 'few_rows_epilogue'];
    expect(compare({}, 33, [0, 32], true)).to.deep.equal([...layer, ...layer]);
    compare({ n_groups: 2, num_heads: 4, head_dim: 16, num_hidden_layers: 1 }, 34, [], true);
  });

  it('of matrices without such kernels has two, around the recurrence', () => {
    expect(compare({ num_hidden_layers: 1 }, 3, [2], false)).to.deep.equal(['epilogue', 'ssm_step']);
  });
});
