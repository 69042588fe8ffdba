/** Operations of prompts and steps on WebAssembly, each against plain loops, of one row and of several; and threads, which must change nothing. */
import { expect } from 'chai';
import { Worker } from 'node:worker_threads';
import { epilogueReference } from '../../../src/kernels/epilogue/reference.js';
import { ssmStepReference } from '../../../src/kernels/ssm_step/reference.js';
import { type Address, kernelsOver, type WasmBackend, type WasmKernels } from '../../../src/kernels/wasm/module.js';
import {
  CARRIED,
  convolutionOperation,
  lookupOperation,
  normOperation,
  type Operation,
  type PlacedMatrix,
  productOperation,
  recurrenceOperation,
  WORDS,
} from '../../../src/kernels/wasm/program.js';
import { randomMatrix } from '../../support/packed_matrices.js';
import { Draw, expectWithin } from '../host/cases.js';

/** Of values of size 1 to 10, and sums of some hundred of them in float32. */
const NEAR = 2e-5;

function expectAll(got: ArrayLike<number>, want: ArrayLike<number>, name: string, near = NEAR): void {
  const bounds = Float64Array.from(want, (value) => near * Math.max(1, Math.abs(value)));
  expectWithin(got, { values: Float64Array.from(want), bounds }, name);
}

interface Api {
  readonly Memory: new (about: object) => { readonly buffer: ArrayBufferLike };
}

/** Kernels over a memory of the test's own, in which nothing is freed. */
class Place {
  readonly kernels: WasmKernels;
  private used = 1024;
  private readonly workers: Worker[] = [];

  constructor(shared = false) {
    const { Memory } = (globalThis as unknown as { WebAssembly: Api }).WebAssembly;
    const memory = new Memory({ initial: 128, maximum: 128, shared });
    const backend = {
      wasm: { wasmMemory: memory },
      dataIdMap: { get: (id: unknown) => id },
      makeOutput: ([size]: number[]) => ({ dataId: { memoryOffset: this.room(size!) } }),
      disposeData: () => true,
    };
    this.kernels = kernelsOver(backend as unknown as WasmBackend)!;
  }

  room(values: number): Address {
    const at = this.used;
    this.used += 16 * Math.ceil(values / 4);
    return at;
  }

  floats(values: Float32Array | number): Address {
    const [count, from] = typeof values === 'number' ? [values, new Float32Array(values).fill(NaN)] : [values.length, values]; // prettier-ignore
    const at = this.room(count);
    this.kernels.values(at, count).set(from);
    return at;
  }

  bytes(bytes: Uint8Array): Address {
    const at = this.room(bytes.length / 4);
    new Uint8Array(this.kernels.memory.buffer, at, bytes.length).set(bytes);
    return at;
  }

  read(at: Address, count: number): Float32Array {
    return this.kernels.values(at, count).slice();
  }

  /** Workers of Node.js in the place of a page's. */
  async start(count: number): Promise<void> {
    const { module, memory, control } = this.kernels;
    const script = `const { parentPort, workerData: { module, memory, control, thread } } = require('node:worker_threads');
      const { serve } = new WebAssembly.Instance(module, { env: { memory } }).exports;
      parentPort.postMessage(null);
      serve(control, thread);`;
    for (let thread = 1; thread < count; thread++) {
      const worker = new Worker(script, { eval: true, workerData: { module, memory, control, thread } });
      this.workers.push(worker);
      await new Promise((resolve) => worker.once('message', resolve));
    }
    this.kernels.threads = count;
  }

  async end(): Promise<void> {
    await Promise.all(this.workers.map((worker) => worker.terminate()));
  }
}

/** x normed by groups, in plain loops. */
function normed(x: Float32Array, gamma: Float32Array, groups: number, epsilon: number): Float64Array {
  const span = x.length / groups;
  return Float64Array.from(x, (value, i) => {
    const first = Math.floor(i / span) * span;
    let squares = 0;
    for (let c = first; c < first + span; c++) squares += x[c]! ** 2;
    return (value / Math.sqrt(squares / span + epsilon)) * gamma[i]!;
  });
}

/** A matrix in memory, and its weights. */
function matrixOf(
  place: Place,
  draw: Draw,
  bits: 4 | 8 | 16 | 32,
  out: number,
  inner: number,
): { placed: PlacedMatrix; weights: ArrayLike<number> } {
  // prettier-ignore
  if (bits === 32) {
    const weights = draw.numbers(out * inner);
    return { placed: { bits, out, inner, groupSize: inner, codes: place.floats(weights), levels: 0 }, weights };
  }
  const groupSize = bits === 4 ? 32 : inner;
  const plain = randomMatrix(bits, { out, inner, groupSize }, draw.whole(0, 99));
  const placed = { bits, out, inner, groupSize, codes: place.bytes(plain.codes), levels: place.floats(plain.levels) };
  return { placed, weights: plain.values };
}

describe('operations on WebAssembly', () => {
  for (let seed = 0; seed < 6; seed++)
    it(`norm, ${seed}`, () => {
      const [place, draw] = [new Place(), new Draw(seed)];
      const [groups, rows] = [draw.whole(1, 3), draw.whole(1, 5)];
      const inner = groups * draw.whole(1, 70);
      const [x, gamma] = [draw.numbers(rows * inner, 3), draw.numbers(inner)];
      const of = { inner, gamma: place.floats(gamma), groups, epsilon: 1e-5 };
      const want = Array.from({ length: rows }, (_, r) => normed(x.subarray(r * inner, (r + 1) * inner), gamma, groups, 1e-5)); // prettier-ignore
      for (const last of [false, true]) {
        const y = place.floats(rows * inner);
        place.kernels.once(normOperation({ rows: place.kernels.rows, x: place.floats(x), y }, { ...of, last }), rows);
        const got = place.read(y, rows * inner);
        if (last) expectAll(got.subarray(0, inner), want.at(-1)!, 'the last row');
        else expectAll(got, want.flatMap((row) => [...row]), 'all rows'); // prettier-ignore
      }
    });

  for (const bits of [4, 8, 16, 32] as const)
    for (let seed = 0; seed < 8; seed++)
      it(`product and lookup of ${bits} bits, ${seed}`, () => {
        const [place, draw] = [new Place(), new Draw(10 * seed + bits)];
        const [rows, out, accumulate, biased] = [draw.of([1, 2, 4, 5, 9]), draw.whole(1, 90), draw.flag(), draw.flag()];
        const inner = bits === 4 ? 32 * draw.whole(1, 6) : draw.whole(1, 150);
        const { placed, weights } = matrixOf(place, draw, bits, out, inner);
        const [x, before, bias] = [draw.numbers(rows * inner), draw.numbers(rows * out), draw.numbers(out)];
        const y = accumulate ? place.floats(before) : place.floats(rows * out);
        const about = { accumulate, most: rows, bias: biased ? place.floats(bias) : 0 };
        place.kernels.once(productOperation(placed, { rows: place.kernels.rows, x: place.floats(x), y }, about), rows);
        const want = Array.from(before, (value, i) => {
          const [r, o] = [Math.floor(i / out), i % out];
          let sum = (accumulate ? value : 0) + (biased ? bias[o]! : 0);
          for (let c = 0; c < inner; c++) sum += x[r * inner + c]! * weights[o * inner + c]!;
          return sum;
        });
        // up to 8 in size, some 190 terms
        expectAll(place.read(y, rows * out), want, 'product', 1e-4);
        const ids = Int32Array.from({ length: rows }, () => draw.whole(0, out - 1));
        const found = place.floats(rows * inner);
        const passed = { rows: place.kernels.rows, x: place.bytes(new Uint8Array(ids.buffer)), y: found };
        place.kernels.once(lookupOperation(placed, passed), rows);
        expectAll(place.read(found, rows * inner), [...ids].flatMap((id) => Array.from({ length: inner }, (_, c) => weights[id * inner + c]!)), 'lookup', 1e-6); // prettier-ignore
      });

  for (let seed = 0; seed < 12; seed++) {
    const draw = new Draw(1000 * seed + 7);
    const [groups, rows, hasBias] = [draw.whole(1, 3), draw.whole(1, 6), draw.flag()];
    const sizes = {
      ...{ heads: groups * draw.whole(1, 3), headDim: draw.whole(1, 20), groups, stateSize: draw.whole(1, 40) },
      limit: draw.of([
        [0, Infinity],
        [0.4, 1.5],
      ] as const),
    };
    const taps = draw.whole(1, 5);
    // tokens of one text, or one of each text, with a state of its own
    for (const texts of [1, rows])
      it(`convolution and recurrence, ${rows} rows, ${texts} texts, ${taps} taps, ${JSON.stringify(sizes)}`, () => {
        const place = new Place();
        const { heads, headDim, stateSize, limit } = sizes;
        const inner = heads * headDim;
        const channels = inner + 2 * groups * stateSize;
        const stride = inner + channels + heads;
        const [projected, weights] = [draw.numbers(rows * stride, 2), draw.numbers(channels * taps)];
        const [bias, rates] = [draw.numbers(channels), draw.numbers(3 * heads)];
        const [contextSize, stateSize_] = [(taps - 1) * channels, inner * stateSize];
        const [contexts, states] = [draw.numbers(texts * contextSize), draw.numbers(texts * stateSize_)];
        const turned = Float32Array.from(weights, (_, i) => weights[(i % channels) * taps + Math.floor(i / channels)]!);
        const at = {
          ...{ rows: place.kernels.rows, x: place.floats(projected), context: place.floats(contexts) },
          ...{ convolved: place.floats(rows * channels), state: place.floats(states), y: place.floats(rows * inner) },
        };
        const apart = (operation: Operation, kind: keyof typeof CARRIED, size: number): Operation => {
          if (texts > 1) operation.words[CARRIED[kind].step] = 4 * size;
          return operation;
        };
        place.kernels.once(
          apart(
            convolutionOperation(
              {
                ...{ rows: at.rows, x: at.x + 4 * inner, y: at.convolved, context: at.context },
                ...{ weights: place.floats(turned), bias: hasBias ? place.floats(bias) : 0 },
              },
              { channels, taps, stride },
            ),
            'context',
            contextSize,
          ),
          rows,
        );
        place.kernels.once(
          apart(
            recurrenceOperation(
              {
                ...{ rows: at.rows, x: at.x, y: at.y, convolved: at.convolved, rates: place.floats(rates) },
                state: at.state,
              },
              sizes,
            ),
            'state',
            stateSize_,
          ),
          rows,
        );
        for (let r = 0; r < rows; r++) {
          const y = projected.subarray(r * stride, (r + 1) * stride);
          const text = texts > 1 ? r : 0;
          const context = contexts.subarray(text * contextSize, (text + 1) * contextSize);
          const state = states.subarray(text * stateSize_, (text + 1) * stateSize_);
          const after = epilogueReference(
            { first: inner, channels, taps, heads, bias: hasBias, limit },
            {
              ...{ y, context, place: 0, taps: weights, bias },
              ...{ dtBias: rates.subarray(0, heads), ALog: rates.subarray(heads, 2 * heads) },
            },
          );
          expectAll(place.read(at.convolved + 4 * r * channels, channels), after.xBC, `convolved ${r}`);
          context.set(Float32Array.of(...context, ...y.subarray(inner, inner + channels)).slice(channels));
          const step = [...after.xBC, ...after.dt, ...after.decay];
          const { next, v } = ssmStepReference(
            {
              ...{ rows: 1, heads, headDim, groups, stateSize, dtype: 'float32', norm: null },
              step: { stride: step.length, offset: 0 },
              gate: { stride: inner, offset: 0, activated: true },
            },
            { state, step, gate: after.z, D: rates.subarray(2 * heads) },
          );
          expectAll(place.read(at.y + 4 * r * inner, inner), v, `gated ${r}`);
          state.set(next);
        }
        expectAll(place.read(at.context, contexts.length), contexts, 'context', 0);
        expectAll(place.read(at.state, states.length), states, 'state');
      });
  }

  it('what has no power or is no number stays so: infinities, NaN', () => {
    const place = new Place();
    const raw = Float32Array.of(-1e30, -100, 100, NaN, 0, 1e30);
    const y = place.floats(6);
    const about = { weights: place.floats(Float32Array.of(1, 1, 1, 1, 1, 1)), bias: 0, context: 0 };
    place.kernels.once(
      convolutionOperation({ rows: place.kernels.rows, x: place.floats(raw), y, ...about }, { channels: 6, taps: 1, stride: 6 }), // prettier-ignore
      1,
    );
    const got = place.read(y, 6);
    expect([got[2], got[4], got[5]]).to.deep.equal([100, 0, Math.fround(1e30)]);
    expect(Math.abs(got[0]!)).to.be.below(1e-7);
    expect(Math.abs(got[1]!)).to.be.below(1e-30);
    expect(got[3]).to.deep.equal(NaN);
  });

  it('threads share a program, and give to the bit what one gives', async () => {
    const results: Float32Array[] = [];
    for (const threads of [1, 2, 3]) {
      const [place, draw] = [new Place(true), new Draw(3)];
      await place.start(threads);
      const [rows, hidden] = [7, 64];
      const [x, y] = [place.floats(draw.numbers(rows * hidden)), place.floats(rows * hidden)];
      const at = { rows: place.kernels.rows, x, y };
      const norm = { inner: hidden, gamma: place.floats(draw.numbers(hidden)), groups: 1, epsilon: 1e-5 };
      const programs: Operation[] = [];
      for (let layer = 0; layer < 20; layer++) {
        const { placed } = matrixOf(place, draw, draw.of([4, 8, 16, 32] as const), hidden, hidden);
        programs.push(normOperation(at, norm));
        programs.push(productOperation(placed, { ...at, x: y, y: x }, { accumulate: true, most: rows }));
      }
      const size = Math.max(...programs.map(({ scratch }) => scratch));
      const [program, scratch] = [place.room(WORDS * programs.length), place.room(size * threads)];
      programs.forEach(({ words }, i) => place.kernels.words(program + 4 * WORDS * i, WORDS).set(words));
      // of other numbers of rows, one after another and with pauses in which the others fall asleep
      for (let run = 0; run < 600; run++) {
        place.kernels.words(place.kernels.rows, 1)[0] = 1 + (run % rows);
        place.kernels.run(program, programs.length, scratch, size);
        if (run % 200 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      }
      results.push(place.read(x, rows * hidden));
      await place.end();
    }
    expect(results[0]!.every(Number.isFinite)).to.equal(true);
    for (const other of results.slice(1)) expect(other).to.deep.equal(results[0]);
  }).timeout(60_000);
});
