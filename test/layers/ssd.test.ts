/** The chunked scan and its single step against the recurrence token by token. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError } from '../../src/base/errors.js';
import { ssdChunkScan, type SsdInputs, ssdStep } from '../../src/layers/ssd.js';
import { onBackends, useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { thrown } from '../support/errors.js';
import { arr, type Arr, dot, numericGradient, randomArr, rows, ssd, stack, toTensor } from '../support/oracle.js';
import { lcg } from '../support/random.js';

interface Sizes {
  b: number;
  t: number;
  h: number;
  p: number;
  g: number;
  n: number;
}

type Case = Record<'x' | 'dt' | 'A' | 'B' | 'C' | 'initialState', Arr>;

function makeCase({ b, t, h, p, g, n }: Sizes, seed: number, largestDt = 1): Case {
  const random = lcg(seed);
  return {
    x: randomArr(random, [b, t, h, p]),
    dt: randomArr(random, [b, t, h], 0, largestDt),
    A: randomArr(random, [h], -3, -0.05),
    B: randomArr(random, [b, t, g, n]),
    C: randomArr(random, [b, t, g, n]),
    initialState: randomArr(random, [b, h, p, n]),
  };
}

function oracle(c: Case, withState: boolean): { y: Arr; state: Arr } {
  const row = (a: Arr, i: number): Arr => {
    const one = rows(a, i, i + 1);
    return { shape: one.shape.slice(1), data: one.data };
  };
  const each = Array.from({ length: c.x.shape[0]! }, (_, i) =>
    ssd(row(c.x, i), row(c.dt, i), c.A, row(c.B, i), row(c.C, i), withState ? row(c.initialState, i) : undefined),
  );
  return { y: stack(each.map(({ y }) => y)), state: stack(each.map(({ state }) => state)) };
}

function tensors(c: Case, withState: boolean): SsdInputs {
  const entries = Object.entries(c).filter(([name]) => withState || name !== 'initialState');
  return Object.fromEntries(entries.map(([name, value]) => [name, toTensor(value)])) as unknown as SsdInputs;
}

function check(sizes: Sizes, chunk: number, withState: boolean, seed: number): void {
  const c = makeCase(sizes, seed);
  const want = oracle(c, withState);
  const what = `${JSON.stringify(sizes)}, chunk ${chunk}, ${withState ? 'with' : 'without'} a state`;
  const start = tf.memory().numTensors;
  tf.tidy(() => {
    const before = tensors(c, withState);
    const made = tf.memory().numTensors;
    const { y, finalState } = ssdChunkScan(before, chunk);
    expect(tf.memory().numTensors - made, 'tensors made').to.equal(2);
    expect(y.shape).to.deep.equal(want.y.shape);
    expect(finalState.shape).to.deep.equal(want.state.shape);
    expectClose(y, want.y.data, 1e-4, `y, ${what}`);
    expectClose(finalState, want.state.data, 1e-4, `final state, ${what}`);
  });
  expect(tf.memory().numTensors).to.equal(start);
}

const K = 4; // taps of the convolution before the scan: lengths around it are those of short prompts

for (const chunk of [1, 4, 16, 64, 256]) {
  const lengths = [...new Set([1, K - 1, K, chunk - 1, chunk, chunk + 1, 2 * chunk + 3])].filter((t) => t > 0);
  // one group, several, one for each head; the long chunks on the native backend alone (the rest has no other code path)
  onBackends(chunk <= 16 ? ['tensorflow', 'wasm', 'cpu'] : ['tensorflow'], `SSD scan in chunks of ${chunk}`, () => {
    for (const t of lengths) {
      it(`${t} tokens`, () => {
        for (const g of [1, 2, 4]) {
          for (const withState of [false, true]) check({ b: 2, t, h: 4, p: 2, g, n: 3 }, chunk, withState, t + 10 * g);
        }
      });
    }
  });
}

onBackends(['tensorflow', 'wasm', 'cpu'], 'SSD scan', () => {
  it('gives the same whatever the chunk', () => {
    const c = makeCase({ b: 1, t: 37, h: 2, p: 3, g: 1, n: 4 }, 5);
    tf.tidy(() => {
      const whole = ssdChunkScan(tensors(c, true), 64);
      for (const chunk of [1, 2, 5, 8, 36, 37]) {
        const { y, finalState } = ssdChunkScan(tensors(c, true), chunk);
        expectClose(y, whole.y, 1e-5, `chunk ${chunk}`);
        expectClose(finalState, whole.finalState, 1e-5, `chunk ${chunk}`);
      }
    });
  });

  it('a position with dt 0 changes nothing', () => {
    const c = makeCase({ b: 1, t: 9, h: 2, p: 2, g: 1, n: 3 }, 6);
    for (let i = 0; i < 4; i++) c.dt.data[(5 + i) * 2] = c.dt.data[(5 + i) * 2 + 1] = 0;
    const short = Object.fromEntries(
      Object.entries(c).map(([name, a]) => [
        name,
        name === 'A' || name === 'initialState'
          ? a
          : arr([1, 5, ...a.shape.slice(2)], a.data.slice(0, (a.data.length / 9) * 5)),
      ]),
    ) as Case;
    tf.tidy(() => {
      const long = ssdChunkScan(tensors(c, true), 4);
      expectClose(long.finalState, oracle(short, true).state.data, 1e-5);
    });
  });

  it('one step is a scan over one token', () => {
    const c = makeCase({ b: 2, t: 1, h: 4, p: 2, g: 2, n: 3 }, 7);
    const want = oracle(c, true);
    tf.tidy(() => {
      const { x, dt, A, B, C, initialState } = tensors(c, true);
      const step = ssdStep({
        x: tf.squeeze(x, [1]),
        dt: tf.squeeze(dt, [1]),
        A,
        B: tf.squeeze(B, [1]),
        C: tf.squeeze(C, [1]),
        state: initialState!,
      });
      expect(step.y.shape).to.deep.equal([2, 4, 2]);
      expectClose(step.y, want.y.data, 1e-5);
      expectClose(step.state, want.state.data, 1e-5);
    });
  });

  for (const withState of [false, true]) {
    it(`has the gradients of the recurrence ${withState ? 'with' : 'without'} a state`, () => {
      for (const [t, chunk, g] of [
        [5, 2, 2],
        [4, 8, 1],
        [3, 1, 1],
      ] as const) {
        const c = makeCase({ b: 1, t, h: 2, p: 2, g, n: 2 }, t);
        const toY = randomArr(lcg(1), c.x.shape);
        const toState = randomArr(lcg(2), c.initialState.shape);
        const names = Object.keys(c).filter((name) => withState || name !== 'initialState') as (keyof Case)[];
        const scalar = (): number => {
          const { y, state } = oracle(c, withState);
          return dot(y, toY) + dot(state, toState);
        };
        tf.tidy(() => {
          const f = (...xs: tf.Tensor[]): tf.Scalar => {
            const inputs = Object.fromEntries(names.map((name, i) => [name, xs[i]!])) as unknown as SsdInputs;
            const { y, finalState } = ssdChunkScan(inputs, chunk);
            return tf.add(tf.sum(tf.mul(y, toTensor(toY))), tf.sum(tf.mul(finalState, toTensor(toState))));
          };
          const got = tf.grads(f)(names.map((name) => toTensor(c[name])));
          names.forEach((name, i) =>
            expectClose(got[i]!, numericGradient(c[name], scalar).data, 1e-4, `${name}, ${t} tokens, chunk ${chunk}`),
          );
        });
      }
    });
  }

  it('is as exact where decays are strong: steps that forget all among steps that forget little', () => {
    // log-decays of a token from -1e-4 to -40,000, the sums of a chunk up to a million: their differences decide
    for (const [t, chunk, seed] of [
      [200, 64, 21],
      [300, 256, 22],
      [150, 16, 23],
    ] as const) {
      const random = lcg(seed);
      const c = makeCase({ b: 1, t, h: 4, p: 2, g: 2, n: 3 }, seed);
      c.A = arr([4], Float64Array.of(-0.5, -16, -256, -2000));
      c.dt.data = c.dt.data.map(() => Math.fround(21 * random() ** 12));
      const want = oracle(c, true);
      const scale = Math.max(...want.y.data.map(Math.abs));
      tf.tidy(() => {
        const { y, finalState } = ssdChunkScan(tensors(c, true), chunk);
        expectClose(y, want.y.data, 2e-6 * scale, `y, chunk ${chunk}`);
        expectClose(finalState, want.state.data, 2e-6 * scale, `final state, chunk ${chunk}`);
      });
    }
  });

  it('has the gradients of the recurrence where decays are strong', () => {
    const random = lcg(31);
    const c = makeCase({ b: 1, t: 24, h: 2, p: 2, g: 1, n: 2 }, 31);
    c.A = arr([2], Float64Array.of(-16, -200));
    c.dt.data = c.dt.data.map(() => Math.fround(21 * random() ** 12));
    const weights = randomArr(lcg(32), c.x.shape);
    const names = ['x', 'dt', 'A', 'B', 'C', 'initialState'] as const;
    tf.tidy(() => {
      const f = (...xs: tf.Tensor[]): tf.Scalar => {
        const inputs = Object.fromEntries(names.map((name, i) => [name, xs[i]!])) as unknown as SsdInputs;
        return tf.sum(tf.mul(ssdChunkScan(inputs, 8).y, toTensor(weights)));
      };
      const got = tf.grads(f)(names.map((name) => toTensor(c[name])));
      names.forEach((name, i) => {
        const want = numericGradient(c[name], () => dot(oracle(c, true).y, weights)).data;
        const norm = Math.hypot(...want);
        const off = Math.hypot(...got[i]!.dataSync().map((value, k) => value - want[k]!));
        expect(off / norm, name).to.be.below(1e-5);
      });
    });
  });

  it('large steps give finite values and gradients', () => {
    // the log-decay over a chunk is about -3000: its exponential underflows, and above the diagonal would overflow
    const c = makeCase({ b: 1, t: 20, h: 2, p: 2, g: 1, n: 3 }, 8, 100);
    const want = oracle(c, true);
    tf.tidy(() => {
      const { y, finalState } = ssdChunkScan(tensors(c, true), 16);
      const scale = Math.max(...want.y.data.map(Math.abs));
      expectClose(y, want.y.data, 1e-5 * scale);
      expectClose(finalState, want.state.data, 1e-5 * scale);
      const names = Object.keys(c) as (keyof Case)[];
      const grads = tf.grads((...xs: tf.Tensor[]) =>
        tf.sum(ssdChunkScan(Object.fromEntries(names.map((name, i) => [name, xs[i]!])) as unknown as SsdInputs, 16).y),
      )(names.map((name) => toTensor(c[name])));
      grads.forEach((grad, i) =>
        expect([...grad.dataSync()].every(Number.isFinite), `gradient of ${names[i]}`).to.equal(true),
      );
    });
  });
});

describe('SSD scan', () => {
  before(() => useBackend('cpu'));

  it('needs no tensor of more than five axes, forward or backward', async () => {
    const c = makeCase({ b: 2, t: 7, h: 4, p: 2, g: 2, n: 3 }, 12);
    const names = Object.keys(c) as (keyof Case)[];
    const { kernels } = await tf.profile(() =>
      tf.tidy(() => {
        tf.grads((...xs: tf.Tensor[]) => {
          const inputs = Object.fromEntries(names.map((name, i) => [name, xs[i]!])) as unknown as SsdInputs;
          const { y, finalState } = ssdChunkScan(inputs, 3);
          return tf.add(tf.sum(y), tf.sum(finalState));
        })(names.map((name) => toTensor(c[name])));
      }),
    );
    expect(kernels.length).to.be.greaterThan(50);
    for (const { name, outputShapes } of kernels) {
      for (const shape of outputShapes) expect(shape.length, `${name} [${shape}]`).to.be.at.most(5);
    }
  });
});

describe('SSD scan refuses', () => {
  before(() => useBackend('cpu'));
  const c = makeCase({ b: 1, t: 4, h: 4, p: 2, g: 2, n: 3 }, 9);
  const refuse = (change: Partial<Case>, chunk = 4): string => {
    const error = thrown(() => tf.tidy(() => ssdChunkScan(tensors({ ...c, ...change }, true), chunk).y));
    expect(error).to.be.instanceOf(ArgumentError);
    return error.message;
  };

  it('dt of other heads', () =>
    expect(refuse({ dt: arr([1, 4, 3]) })).to.contain('dt has shape [1,4,3], expected [1,4,4]'));
  it('A of other heads', () => expect(refuse({ A: arr([3]) })).to.contain('A has shape'));
  it('C unlike B', () => expect(refuse({ C: arr([1, 4, 2, 4]) })).to.contain('C has shape'));
  it('B of another length', () => expect(refuse({ B: arr([1, 5, 2, 3]) })).to.contain('B has shape'));
  it('a state of another size', () => expect(refuse({ initialState: arr([1, 4, 3, 3]) })).to.contain('initialState'));
  it('groups that do not divide heads', () => {
    expect(refuse({ B: arr([1, 4, 3, 3]), C: arr([1, 4, 3, 3]) })).to.contain('3 groups do not divide 4 heads');
  });
  for (const chunk of [0, -4, 1.5, NaN])
    it(`a chunk size of ${chunk}`, () => expect(refuse({}, chunk)).to.contain(String(chunk)));
});
