/** The mixer with states and masks: continuing, padding, causality, the limit on dt. Values are the oracle's, row by row. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { CausalConv1D } from '../../src/layers/causal_conv1d.js';
import { causalConv } from '../../src/layers/convolution.js';
import { Mamba2Block } from '../../src/layers/block.js';
import { Mamba2Mixer, mixerForward, type MixerState } from '../../src/layers/mixer.js';
import type { Mamba2MixerArgs } from '../../src/layers/mixer_spec.js';
import { onBackends } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import * as oracle from '../support/oracle.js';
import { lcg } from '../support/random.js';

const ARGS: Mamba2MixerArgs = {
  hiddenSize: 5,
  numHeads: 4,
  headDim: 3,
  nGroups: 2,
  stateSize: 4,
  chunkSize: 4,
  useBias: true,
  timeStepLimit: [0.3, 1],
};

onBackends(['tensorflow', 'wasm', 'cpu'], 'mixer', () => {
  const { spec } = new Mamba2Mixer(ARGS);
  const random = lcg(21);
  const values = Object.fromEntries(
    new Mamba2Mixer(ARGS).specs().map(({ name, shape }) => [name, oracle.randomArr(random, shape)]),
  );
  let weights: Record<string, tf.Tensor>;
  let start: number;
  beforeEach(() => {
    start = tf.memory().numTensors;
    weights = Object.fromEntries(Object.entries(values).map(([name, a]) => [name, oracle.toTensor(a)]));
  });
  afterEach(() => {
    tf.dispose(weights);
    expect(tf.memory().numTensors).to.equal(start);
  });
  const run = (u: oracle.Arr, options?: { state?: MixerState; mask?: tf.Tensor2D }): ReturnType<typeof mixerForward> =>
    mixerForward(spec, weights, oracle.toTensor(u) as tf.Tensor3D, options);
  const one = (u: oracle.Arr): oracle.Arr => ({ shape: [1, ...u.shape], data: u.data });

  it('makes three tensors', () => {
    const u = tf.ones([2, 6, 5]) as tf.Tensor3D;
    const before = tf.memory().numTensors;
    const { y, state } = mixerForward(spec, weights, u);
    expect(tf.memory().numTensors - before).to.equal(3);
    expect(state.conv.shape).to.deep.equal([2, 3, spec.convSize]);
    expect(state.ssm.shape).to.deep.equal([2, 4, 3, 4]);
    tf.dispose([u, y, state.conv, state.ssm]);
  });

  it('any split over calls with a state is one pass', () => {
    const u = oracle.randomArr(random, [13, 5]);
    const whole = oracle.mixer(spec, values, u);
    for (const cuts of [[1], [3, 4], [2, 3, 8], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [12], [5, 6, 7]]) {
      tf.tidy(() => {
        let state: MixerState | undefined;
        [0, ...cuts].forEach((from, i) => {
          const to = cuts[i] ?? 13;
          const out = run(one(oracle.rows(u, from, to)), { state });
          expectClose(out.y, oracle.rows(whole.y, from, to).data, 1e-5, `cuts ${cuts}, from ${from}`);
          state = out.state;
        });
        expectClose(state!.conv, whole.state.conv.data, 1e-5, 'conv');
        expectClose(state!.ssm, whole.state.ssm.data, 1e-5, 'ssm');
      });
    }
  });

  it('does not dispose the state it starts from, nor change it', () => {
    tf.tidy(() => {
      const { state } = run(oracle.randomArr(random, [1, 4, 5]));
      const kept = [state.conv.dataSync().slice(), state.ssm.dataSync().slice()];
      run(oracle.randomArr(random, [1, 1, 5]), { state });
      run(oracle.randomArr(random, [1, 3, 5]), { state });
      expectClose(state.conv, kept[0]!, 0);
      expectClose(state.ssm, kept[1]!, 0);
    });
  });

  it('rows padded on the right are what each row alone is, states included, from nothing and from a state', () => {
    const lengths = [6, 1, 3, 0];
    const first = oracle.randomArr(random, [4, 5, 5]);
    const u = oracle.randomArr(random, [4, 6, 5], -3, 3);
    tf.tidy(() => {
      const mask = tf.tensor2d(lengths.map((n) => Array.from({ length: 6 }, (_, j) => (j < n ? 1 : 0))));
      const before = run(first);
      for (const state of [undefined, before.state]) {
        const out = run(u, { mask, state });
        lengths.forEach((n, i) => {
          const row = (a: oracle.Arr): oracle.Arr => ({ shape: a.shape.slice(1), data: oracle.rows(a, i, i + 1).data });
          const past = state && oracle.mixer(spec, values, row(first)).state;
          const alone =
            n > 0
              ? oracle.mixer(spec, values, oracle.rows(row(u), 0, n), past)
              : { y: oracle.arr([0, 5]), state: past };
          expectClose(tf.slice(out.y, [i, 0, 0], [1, n, 5]), alone.y.data, 1e-5, `row ${i}`);
          const conv = alone.state?.conv.data ?? new Float64Array(3 * spec.convSize);
          const ssm = alone.state?.ssm.data ?? new Float64Array(4 * 3 * 4);
          expectClose(tf.slice(out.state.conv, [i, 0, 0], [1, -1, -1]), conv, 1e-5, `conv of row ${i}`);
          expectClose(tf.slice(out.state.ssm, [i, 0, 0, 0], [1, -1, -1, -1]), ssm, 1e-5, `ssm of row ${i}`);
        });
      }
    });
  });

  it('rows padded on the left are what each row alone is, when nothing came before', () => {
    const lengths = [6, 1, 4];
    const u = oracle.randomArr(random, [3, 6, 5], -3, 3);
    tf.tidy(() => {
      const mask = tf.tensor2d(lengths.map((n) => Array.from({ length: 6 }, (_, j) => (j >= 6 - n ? 1 : 0))));
      const out = run(u, { mask });
      lengths.forEach((n, i) => {
        const row = { shape: [6, 5], data: oracle.rows(u, i, i + 1).data };
        const alone = oracle.mixer(spec, values, oracle.rows(row, 6 - n, 6));
        expectClose(tf.slice(out.y, [i, 6 - n, 0], [1, n, 5]), alone.y.data, 1e-4, `row ${i}`);
        expectClose(tf.slice(out.state.conv, [i, 0, 0], [1, -1, -1]), alone.state.conv.data, 1e-4, `conv of row ${i}`);
        expectClose(
          tf.slice(out.state.ssm, [i, 0, 0, 0], [1, -1, -1, -1]),
          alone.state.ssm.data,
          1e-4,
          `ssm of row ${i}`,
        );
      });
    });
  });

  it('one token with a mask of 0 leaves a state alone', () => {
    tf.tidy(() => {
      const { state } = run(oracle.randomArr(random, [2, 4, 5]));
      const out = run(oracle.randomArr(random, [2, 1, 5]), { state, mask: tf.tensor2d([[0], [1]]) });
      const row = (x: tf.Tensor, i: number): tf.Tensor => tf.gather(x, [i]);
      expectClose(row(out.state.conv, 0), row(state.conv, 0), 0, 'conv');
      expectClose(row(out.state.ssm, 0), row(state.ssm, 0), 1e-7, 'ssm');
      expect(tf.max(tf.abs(tf.sub(row(out.state.ssm, 1), row(state.ssm, 1)))).dataSync()[0]).to.be.greaterThan(1e-3);
    });
  });

  it('a token changes nothing before it', () => {
    const u = oracle.randomArr(random, [1, 11, 5]);
    tf.tidy(() => {
      const { y } = run(u);
      for (const p of [0, 1, 4, 7, 10]) {
        const changed = oracle.arr(u.shape, u.data);
        for (let c = 0; c < 5; c++) changed.data[p * 5 + c]! += 2;
        const other = run(changed).y;
        expectClose(tf.slice(other, [0, 0, 0], [1, p, 5]), tf.slice(y, [0, 0, 0], [1, p, 5]), 0, `before ${p}`);
        const at = tf.slice(tf.abs(tf.sub(other, y)), [0, p, 0], [1, 1, 5]);
        expect(tf.max(at).dataSync()[0], `at ${p}`).to.be.greaterThan(1e-3);
      }
    });
  });

  it('the limit on dt acts in a pass and in single steps', () => {
    const u = oracle.randomArr(random, [6, 5]);
    const free = oracle.mixer({ ...spec, timeStepLimit: [0, Infinity] }, values, u);
    const limited = oracle.mixer(spec, values, u);
    // else the test would pass without a limit
    expect(Math.max(...free.y.data.map((v, i) => Math.abs(v - limited.y.data[i]!)))).to.be.greaterThan(0.01);
    tf.tidy(() => {
      expectClose(run(one(u)).y, limited.y.data, 1e-5);
      let state = run(one(oracle.rows(u, 0, 1))).state;
      for (let i = 1; i < 6; i++) {
        const out = run(one(oracle.rows(u, i, i + 1)), { state });
        expectClose(out.y, oracle.rows(limited.y, i, i + 1).data, 1e-5, `step ${i}`);
        state = out.state;
      }
    });
  });

  for (const Layer of [Mamba2Mixer, Mamba2Block]) {
    it(`${Layer.className}.callAndReturnState agrees with call and leaves a layer that can be saved and disposed`, async () => {
      const layer = new Layer({ ...ARGS, useBias: false });
      const u = oracle.toTensor(oracle.randomArr(random, [1, 5, 5])) as tf.Tensor3D;
      const out = layer.callAndReturnState(u);
      const y = layer.apply(u) as tf.Tensor;
      expectClose(out.y, y, 1e-6);
      for (const weight of layer.weights) expect(weight.name).to.contain(`${layer.name}/`);
      tf.dispose([u, y, out.y, out.state.conv, out.state.ssm]);
      layer.dispose();
    });
  }
});

onBackends(['tensorflow', 'wasm', 'cpu'], 'causal convolution', (backend) => {
  it('carries its context over any split, also over one shorter than its taps', () => {
    const random = lcg(22);
    const [x, w, bias] = [
      oracle.randomArr(random, [9, 3]),
      oracle.randomArr(random, [3, 1, 4]),
      oracle.randomArr(random, [3]),
    ];
    const whole = oracle.causalConv(x, w, bias);
    tf.tidy(() => {
      let context: tf.Tensor3D | undefined;
      for (const [from, to] of [
        [0, 1],
        [1, 2],
        [2, 4],
        [4, 9],
      ] as const) {
        const part = oracle.toTensor({ shape: [1, to - from, 3], data: oracle.rows(x, from, to).data }) as tf.Tensor3D;
        const out = causalConv(part, oracle.toTensor(w), oracle.toTensor(bias), context);
        expectClose(out.y, oracle.rows(whole.y, from, to).data, 1e-6, `${from}..${to}`);
        context = out.context;
      }
      expectClose(context!, whole.context.data, 0);
    });
  });

  if (backend === 'tensorflow')
    it('gives the same values, contexts and gradients in the form for GPUs', () => {
      const random = lcg(24);
      const segments = tf.tensor2d([0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 0, 1], [2, 6], 'int32');
      for (const t of [1, 3, 4, 6]) {
        for (const masked of [false, true]) {
          for (const split of [false, true]) {
            tf.tidy(() => {
              const make = (shape: number[]): tf.Tensor => oracle.toTensor(oracle.randomArr(random, shape));
              const mask = tf.slice(tf.tensor2d([1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1], [2, 6]), [0, 0], [2, t]);
              const real = masked ? tf.reshape(mask, [2, t, 1]) : tf.ones([2, t, 1]);
              const given = [tf.mul(make([2, t, 3]), real), make([3, 1, 4]), make([3]), make([2, 3, 3])];
              const weights = make([2, t, 3]);
              const run = (
                inPlace: boolean,
                [x, w, bias, context]: tf.Tensor[],
              ): { y: tf.Tensor; context: tf.Tensor } =>
                causalConv(
                  x as tf.Tensor3D,
                  w!,
                  bias,
                  context as tf.Tensor3D,
                  masked ? mask : undefined,
                  split ? tf.slice(segments, [0, 0], [2, t]) : undefined,
                  { inPlace },
                );
              const [a, b] = [run(false, given), run(true, given)];
              expectClose(b.y, a.y.dataSync(), 1e-6);
              expectClose(b.context, a.context.dataSync(), 0);
              const gradients = (inPlace: boolean): tf.Tensor[] =>
                tf.grads((...xs: tf.Tensor[]) => tf.sum(tf.mul(run(inPlace, xs).y, weights)))(given);
              const want = gradients(false);
              gradients(true).forEach((g, i) => expectClose(g, want[i]!.dataSync(), 1e-5, `gradient ${i}`));
            });
          }
        }
      }
      segments.dispose();
    });

  it('as a layer returns its context', () => {
    const layer = new CausalConv1D({ channels: 2, kernelSize: 3 });
    const x = oracle.toTensor(oracle.randomArr(lcg(23), [1, 5, 2])) as tf.Tensor3D;
    const y = layer.apply(x) as tf.Tensor;
    const start = tf.memory().numTensors;
    const out = layer.forward(x, layer.weightMap());
    expect(tf.memory().numTensors - start).to.equal(2);
    expectClose(out.y, y, 1e-6);
    tf.tidy(() => expectClose(out.context, tf.slice(x, [0, 3, 0], [1, 2, 2]), 0));
    tf.dispose([x, y, out.y, out.context]);
    layer.dispose();
  });
});
