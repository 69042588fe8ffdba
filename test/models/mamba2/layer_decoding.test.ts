/** A decoding step of one row as a GPU runs it: each layer's kernel in plain loops, against the layers themselves. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { castFloat32, castTo } from '../../../src/jit/index.js';
import { withKernelRunner } from '../../../src/jit/triton.js';
import type { MixerState } from '../../../src/layers/mixer.js';
import { bfloat16Storage } from '../../../src/layers/storage.js';
import type { Weight } from '../../../src/layers/weights.js';
import { Mamba2Config, type Mamba2ConfigFields } from '../../../src/models/mamba2/config.js';
import { isMatrix } from '../../../src/models/mamba2/decoding_program.js';
import { Mamba2Network } from '../../../src/models/mamba2/network.js';
import { useBackend } from '../../support/backends.js';
import { expectClose } from '../../support/compare.js';
import { plainKernels } from '../../support/kernels.js';
import { randomArr, toTensor } from '../../support/oracle.js';
import { lcg } from '../../support/random.js';

const SIZES: Partial<Mamba2ConfigFields> = {
  vocab_size: 24,
  hidden_size: 256,
  expand: 1,
  num_heads: 8,
  head_dim: 32,
  state_size: 16,
  n_groups: 1,
  num_hidden_layers: 2,
  conv_kernel: 4,
  chunk_size: 4,
  tie_word_embeddings: false,
};

describe('a decoding step of one row on a GPU', () => {
  before(() => useBackend('tensorflow'));

  /** One step. @param narrow states are stored in bfloat16 @param on the row moves on */
  function compare(change: Partial<Mamba2ConfigFields>, narrow: boolean, on: boolean, blocks: number): string[] {
    const config = new Mamba2Config({ ...SIZES, ...change });
    const network = new Mamba2Network(config);
    const random = lcg(5);
    const kernels: string[] = [];
    tf.tidy(() => {
      const rounded = (x: tf.Tensor): tf.Tensor => castFloat32(castTo(x, 'bfloat16'));
      const [plain, stored]: [Record<string, Weight>, Record<string, Weight>] = [{}, {}];
      for (const spec of network.weightSpecs()) {
        const value = toTensor(randomArr(random, spec.shape, -0.2, 0.2));
        plain[spec.name] = isMatrix(spec) ? rounded(value) : value;
        const matrix = bfloat16Storage(spec.shape);
        stored[spec.name] = isMatrix(spec) ? matrix.weight({ '': castTo(value, 'bfloat16') }) : value;
      }
      const { convSize } = network.blocks[0]!.spec;
      const contexts = toTensor(randomArr(random, [1, config.num_hidden_layers, 3, convSize])) as tf.Tensor4D;
      const states = (tf.unstack(contexts, 1) as tf.Tensor3D[]).map((conv): MixerState => {
        const ssm = toTensor(randomArr(random, [1, config.num_heads, config.head_dim, config.state_size]));
        return { conv, ssm: (narrow ? rounded(ssm) : ssm) as tf.Tensor4D };
      });
      const given = states.map((state, layer) => ({
        ...state,
        context: { layers: contexts, layer },
        ...(narrow && { stored: castTo(state.ssm, 'bfloat16') }),
      }));
      const embedded = toTensor(randomArr(random, [1, 1, config.hidden_size])) as tf.Tensor3D;
      const options = { mask: tf.tensor2d([[Number(on)]]), mergeStep: true, withoutNorm: true };
      const want = network.hidden(plain, embedded, { ...options, states });
      const got = withKernelRunner(
        plainKernels(kernels),
        () => network.hidden(stored, embedded, { ...options, states: given }),
        blocks,
      );
      if (on) expectClose(got.h, want.h, 1e-4);
      got.states.forEach((state, i) => {
        expectClose(state.ssm, want.states[i]!.ssm, narrow ? 0.01 : 1e-4);
        const conv = state.context ? tf.unstack(state.context.layers, 1)[i]! : state.conv;
        expectClose(conv, want.states[i]!.conv, 1e-4);
        if (narrow) expect(state.stored, 'the state as it is stored').not.to.equal(undefined);
      });
    });
    return kernels;
  }

  it('is one kernel a layer', () => expect(compare({}, false, true, 3)).to.deep.equal(['layer', 'layer']));

  it('takes states in bfloat16', () => compare({ num_hidden_layers: 1 }, true, true, 4));

  it('leaves states as they are once the row has ended', () => compare({ num_hidden_layers: 1 }, false, false, 4));

  it('takes norms by group, and bounds of step sizes', () =>
    compare(
      { num_hidden_layers: 1, hidden_size: 512, n_groups: 2, num_heads: 16, time_step_limit: [0.3, 1] },
      false,
      true,
      5,
    ));

  const three = ['row_product', 'state', 'row_product'];
  it('is three kernels a layer where it is not known how many blocks run at a time', () =>
    expect(compare({}, false, true, 0)).to.deep.equal([...three, ...three]));

  it('leaves states as they are there, too', () => compare({ num_hidden_layers: 1 }, true, false, 0));
});
