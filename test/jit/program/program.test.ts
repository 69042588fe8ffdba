import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, DeviceError, DisposedError } from '../../../src/base/errors.js';
import { encodeFloat32 } from '../../../src/base/stored_dtypes.js';
import { TracingError } from '../../../src/jit/errors.js';
import {
  attr,
  castFloat32,
  castTo,
  gatherRows,
  matMulBf16,
  matMulStored,
  Program,
  rawOp,
  trueDtype,
  whileLoop,
  type VariableDtype,
} from '../../../src/jit/index.js';
import { FunctionGraph, type Value } from '../../../src/jit/trace/graph.js';
import { nodeBackend } from '../../../src/runtime/binding.js';
import { tensorCount, useBackend } from '../../support/backends.js';

/** Bits of the values in bfloat16 (exact for those used here). */
function bf16(values: readonly number[]): Uint16Array {
  return new Uint16Array(encodeFloat32(Float32Array.from(values), 'BF16').buffer);
}

async function rejection(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

describe('Program', () => {
  before(() => useBackend('tensorflow'));

  it('takes what another fills with bytes from there: the same memory, whichever goes first', async function () {
    if (nodeBackend().isUsingGpuDevice) this.skip();
    const bytes = 2 ** 28;
    let filled = 0;
    const make = (n: number): Program => {
      const program = new Program();
      const init = (): Float32Array => {
        filled++;
        return new Float32Array(bytes / 4).fill(3);
      };
      program.variable('weights', { shape: [bytes / 4], dtype: 'float32', init });
      program.variable('bits', { shape: [3], dtype: 'bfloat16', init: () => bf16([1, 2, n]) });
      program.variable('sum', { shape: [n], dtype: 'float32' });
      program.define('add', { x: { shape: [n], dtype: 'float32' } }, ({ x }, { weights, bits, sum }) => {
        const first = tf.slice(weights!, [0], [1]);
        const next = tf.add(sum!, tf.mul(x!, tf.mul(first, tf.sum(castFloat32(bits!)))));
        return { outputs: { next }, assign: { sum: next } };
      });
      return program;
    };
    const start = tensorCount();
    const one = make(4);
    await one.compile();
    expect([...(one.callSync('add', { x: [1, 2, 3, 4] })['next'] as Float32Array)]).to.deep.equal([21, 42, 63, 84]);
    const before = process.memoryUsage.rss();
    const others = [make(2), make(4)];
    for (const other of others) await other.compile(one);
    expect(filled).to.equal(1);
    expect(process.memoryUsage.rss() - before).to.be.lessThan(bytes / 2);
    one.dispose();
    for (const [i, other] of others.entries()) {
      const x = i === 0 ? [1, 2] : [1, 2, 3, 4];
      expect([...(other.callSync('add', { x })['next'] as Float32Array)]).to.deep.equal(x.map((n) => 21 * n));
      expect([...(other.read('bits') as Float32Array)]).to.deep.equal([1, 2, 4]);
      other.dispose();
    }
    expect(tensorCount()).to.deep.equal(start);
  });

  it('multiplies one row, a few and many by a stored matrix of more than one piece', async () => {
    const [n, k] = [5003, 1000]; // more than the 2²² elements that are taken at once
    const weight = (row: number, column: number): number => (((row * 31 + column * 17) % 13) - 6) / 8;
    const input = (row: number, column: number): number => (((row * 7 + column * 5) % 11) - 5) / 4;
    const values = Float32Array.from({ length: n * k }, (_, i) => weight(Math.floor(i / k), i % k));
    for (const dtype of ['bfloat16', 'float32'] as const) {
      const program = new Program();
      const init = (): ArrayBufferView => (dtype === 'float32' ? values : bf16([...values]));
      program.variable('w', { shape: [n, k], dtype, init });
      for (const m of [1, 3, 8, 9]) {
        program.define(`f${m}`, { x: { shape: [m, k], dtype: 'float32' } }, ({ x }, { w }) => ({
          outputs: { y: matMulStored(x as tf.Tensor2D, w!) },
        }));
      }
      await program.compile();
      for (const m of [1, 3, 8, 9]) {
        const x = Float32Array.from({ length: m * k }, (_, i) => input(Math.floor(i / k), i % k));
        const { y } = program.callSync(`f${m}`, { x });
        expect(y!.length).equal(m * n);
        for (const row of [0, 2501, 2502, 5002]) {
          for (let at = 0; at < m; at++) {
            let sum = 0;
            for (let c = 0; c < k; c++) sum += input(at, c) * weight(row, c);
            // all terms are multiples of 1/32 and small: the sum is exact in any order
            expect(y![at * n + row], `${dtype}, row ${at} of ${m}, output ${row}`).equal(sum);
          }
        }
      }
      program.dispose();
    }
  });

  it('keeps variables on the device between calls and updates them at the end of a function', async () => {
    const program = new Program();
    program.variable('total', { shape: [2], dtype: 'float32' });
    program.variable('calls', { shape: [], dtype: 'int32' });
    program.define('add', { x: { shape: [2], dtype: 'float32' } }, ({ x }, vars) => {
      const total = tf.add(vars['total']!, x!);
      // Read again after computing the new value: still the old one.
      return {
        outputs: { total, old: vars['total']! },
        assign: { total, calls: tf.add(vars['calls']!, tf.scalar(1, 'int32')) },
      };
    });
    program.define('count', {}, (_, { calls }) => ({ outputs: { calls: calls! } }));
    await program.compile();
    const before = tensorCount();
    for (let i = 0; i < 3; i++) program.callSync('add', { x: [1, 2] });
    const out = program.callSync('add', { x: Float32Array.of(1, 2) });
    expect([...out['total']!]).eql([4, 8]);
    expect([...out['old']!]).eql([3, 6]);
    expect([...program.callSync('count')['calls']!]).eql([4]);
    expect(tensorCount()).eql(before);
    tf.tidy(() => {
      expect([...program.runSync('add', { x: tf.tensor1d([1, 1]) })['total']!.dataSync()]).eql([5, 9]);
    });
    expect(tensorCount()).eql(before);
    program.dispose();
  });

  for (const dtype of ['float32', 'bfloat16', 'uint8', 'int32', 'int64'] as VariableDtype[]) {
    it(`brings ${dtype} variables of even and odd sizes in and out, bit for bit`, async () => {
      const width = { float32: 4, bfloat16: 2, uint8: 1, int32: 4, int64: 8 }[dtype];
      const program = new Program();
      const shapes: Record<string, number[]> = {
        scalar: [],
        odd: [3],
        one: [1, 1, 1],
        even: [2, 4],
        'name.with/odd-signs': [5, 1],
      };
      const bytes = new Map<string, Uint8Array>();
      Object.entries(shapes).forEach(([name, shape], k) => {
        const data = Uint8Array.from(
          { length: shape.reduce((a, b) => a * b, 1) * width },
          (_, i) => (i * 7 + k * 13 + 1) % 120,
        );
        bytes.set(name, data);
        // An unaligned view: checkpoints have them.
        program.variable(name, { shape, dtype, init: async () => new Uint8Array([0, ...data]).subarray(1) });
      });
      await program.compile();
      for (const [name, data] of bytes) expect([...program.readBytes(name)], name).eql([...data]);
      program.assign('odd', new Uint8Array(3 * width).fill(1));
      expect([...program.readBytes('odd')]).eql(new Array(3 * width).fill(1));
      expect([...program.readBytes('even')]).eql([...bytes.get('even')!]);
      program.zero(['even']);
      expect([...program.readBytes('even')]).eql(new Array(8 * width).fill(0));
      expect([...program.readBytes('odd')]).eql(new Array(3 * width).fill(1));
      program.zero();
      for (const name of bytes.keys()) expect(Math.max(...program.readBytes(name)), name).equal(0);
      program.dispose();
    });
  }

  it('makes many zeros on the device', async () => {
    const program = new Program();
    program.variable('state', { shape: [2 ** 19, 129], dtype: 'float32' });
    program.variable('narrow', { shape: [3, 5], dtype: 'bfloat16' });
    program.variable('given', { shape: [2], dtype: 'float32', init: () => Float32Array.of(1, 2) });
    program.define('use', {}, (_, { state, given }) => ({
      outputs: { largest: tf.max(tf.abs(state!)), size: tf.add(tf.sum(state!), state!.size), same: tf.mul(given!, 1) },
    }));
    await program.compile();
    const { largest, size, same } = program.runSync('use', {});
    expect([largest!.dataSync()[0], size!.dataSync()[0], [...same!.dataSync()]]).to.deep.equal([
      0,
      2 ** 19 * 129,
      [1, 2],
    ]);
    expect([...program.readBytes('narrow')]).to.deep.equal(new Array(30).fill(0));
    tf.dispose([largest!, size!, same!]);
    program.dispose();
  });

  for (const form of ['', ', as they lie on a GPU'])
    it(`keeps variables of many types and ranks apart${form}`, async () => {
      const backend = tf.backend() as unknown as { isUsingGpuDevice: boolean };
      const device = backend.isUsingGpuDevice;
      backend.isUsingGpuDevice = device || form !== '';
      const program = new Program();
      const types: [VariableDtype, number, (n: number) => Float32Array | Int32Array | Uint8Array][] = [
        ['float32', 4, (n): Float32Array => Float32Array.from({ length: n }, (_, i) => i + 0.5)],
        ['bfloat16', 2, (n): Uint8Array => new Uint8Array(bf16(Array.from({ length: n }, (_, i) => i + 1)).buffer)],
        ['uint8', 1, (n): Uint8Array => Uint8Array.from({ length: n }, (_, i) => 250 - i)],
        ['int32', 4, (n): Int32Array => Int32Array.from({ length: n }, (_, i) => -i - 7)],
      ];
      const shapes = [[], [3], [2, 3], [1, 2, 5], [1]];
      const bytes = new Map<string, Uint8Array>();
      for (const shape of shapes) {
        for (const [dtype, , make] of types) {
          const name = `${dtype}_${shape.join('x') || 'scalar'}`;
          const data = make(shape.reduce((a, d) => a * d, 1));
          bytes.set(name, new Uint8Array(data.buffer.slice(0)));
          program.variable(name, { shape, dtype, init: () => data });
        }
      }
      await program.compile();
      for (const [name, want] of bytes) expect([...program.readBytes(name)], name).deep.equal([...want]);
      program.zero(['bfloat16_2x3', 'int32_scalar']);
      for (const [name, want] of bytes) {
        const zero = name === 'bfloat16_2x3' || name === 'int32_scalar';
        expect([...program.readBytes(name)], name).deep.equal(zero ? [...want].map(() => 0) : [...want]);
      }
      program.dispose();
      backend.isUsingGpuDevice = device;
    });

  for (const form of ['', ', as for a GPU'])
    it(`gathers booleans${form}`, async () => {
      const backend = tf.backend() as unknown as { isUsingGpuDevice: boolean };
      const device = backend.isUsingGpuDevice;
      const program = new Program();
      try {
        backend.isUsingGpuDevice = device || form !== '';
        program.define(
          'f',
          { at: { shape: [3], dtype: 'int32' }, x: { shape: [2, 2], dtype: 'float32' } },
          ({ at, x }) => {
            const rows = tf.gather(tf.greater(x!, 0), at as tf.Tensor1D);
            expect(rows.dtype).to.equal('bool');
            return { outputs: { y: tf.cast(rows, 'int32') } };
          },
        );
      } finally {
        backend.isUsingGpuDevice = device;
      }
      await program.compile();
      expect([...program.callSync('f', { at: [1, 0, 1], x: [1, -1, -1, 2] })['y']!]).eql([0, 1, 1, 0, 0, 1]);
      program.dispose();
    });

  it('keeps any number of variables apart', async () => {
    for (const count of [1, 2, 3, 5, 16, 17]) {
      const program = new Program();
      for (let k = 0; k < count; k++)
        program.variable(`v${k}`, { shape: [2], dtype: 'float32', init: () => Float32Array.of(k, -k) });
      await program.compile();
      program.zero(['v0']);
      for (let k = 1; k < count; k++) expect([...program.read(`v${k}`)]).to.deep.equal([k, -k]);
      expect([...program.read('v0')]).to.deep.equal([0, 0]);
      program.dispose();
    }
  });

  it('takes bytes that do not begin at a whole word', async () => {
    const program = new Program();
    program.variable('v', { shape: [3], dtype: 'bfloat16' });
    await program.compile();
    program.assign('v', new Uint8Array(new Uint8Array([9, 9, 9, 1, 2, 3, 4, 5, 6, 9]).buffer, 3, 6));
    expect([...program.readBytes('v')]).to.deep.equal([1, 2, 3, 4, 5, 6]);
    program.dispose();
  });

  it('reads values in their type', async () => {
    const program = new Program();
    program.variable('b', { shape: [3], dtype: 'bfloat16', init: () => bf16([1.5, -2, 256]) });
    program.variable('i', { shape: [2], dtype: 'int32', init: () => Int32Array.of(-5, 1 << 30) });
    program.variable('l', { shape: [1], dtype: 'int64', init: () => BigInt64Array.of(-7n) });
    program.variable('u', { shape: [2], dtype: 'uint8', init: () => Uint8Array.of(200, 3) });
    await program.compile();
    expect([...(program.read('b') as Float32Array)]).eql([1.5, -2, 256]);
    expect(program.read('i')).eql(Int32Array.of(-5, 1 << 30));
    expect(program.read('l')).eql(BigInt64Array.of(-7n));
    expect(program.read('u')).eql(Uint8Array.of(200, 3));
    program.assign('i', tf.tensor1d([8, 9], 'int32'));
    expect(program.read('i')).eql(Int32Array.of(8, 9));
    program.dispose();
  });

  it('does not share memory with the bytes it was given', async () => {
    const source = Float32Array.of(1, 2, 3, 4);
    const program = new Program();
    program.variable('w', { shape: [4], dtype: 'float32', init: () => source });
    program.define('double', {}, (_, { w }) => ({ assign: { w: tf.mul(w!, 2) } }));
    await program.compile();
    source.fill(9);
    expect(program.read('w')).eql(Float32Array.of(1, 2, 3, 4));
    program.callSync('double');
    expect(program.read('w')).eql(Float32Array.of(2, 4, 6, 8));
    expect(source).eql(new Float32Array(4).fill(9));
    program.dispose();
  });

  it('multiplies and gathers bfloat16 weights, with gradients, as eager does', async () => {
    const w = [1, 2, 3, -1, 0.5, 4];
    const program = new Program();
    program.variable('w', { shape: [2, 3], dtype: 'bfloat16', init: () => bf16(w) });
    program.variable('f', { shape: [2, 3], dtype: 'float32', init: () => Float32Array.from(w) });
    program.define(
      'f',
      { x: { shape: [2, 3], dtype: 'float32' }, ids: { shape: [3], dtype: 'int32' } },
      ({ x, ids }, v) => {
        expect(trueDtype(v['w']!)).equal('bfloat16');
        const grads = tf.grads((a, b) => tf.sum(tf.square(matMulBf16(a, b))))([x!, v['f']!]);
        const rows = tf.grad((t) => tf.sum(tf.square(gatherRows(t, ids!))))(v['f']!);
        return {
          outputs: {
            y: matMulBf16(x!, v['w']!),
            rows: gatherRows(v['w']!, ids!),
            dx: grads[0]!,
            dw: grads[1]!,
            dr: rows,
          },
        };
      },
    );
    await program.compile();
    tf.tidy(() => {
      const x = tf.tensor2d([1, 2, 3, 4, 5, 6], [2, 3]);
      const ids = tf.tensor1d([1, 1, 0], 'int32');
      const f = tf.tensor2d(w, [2, 3]);
      const b = castTo(f, 'bfloat16');
      const grads = tf.grads((a, c) => tf.sum(tf.square(matMulBf16(a, c))))([x, f]);
      const want = {
        y: matMulBf16(x, b),
        rows: gatherRows(b, ids),
        dx: grads[0]!,
        dw: grads[1]!,
        dr: tf.grad((t) => tf.sum(tf.square(gatherRows(t, ids))))(f),
      };
      const got = program.runSync('f', { x, ids });
      for (const [name, t] of Object.entries(want)) expect([...got[name]!.dataSync()], name).eql([...t.dataSync()]);
      expect([...got['y']!.dataSync()]).eql([...tf.matMul(x, f, false, true).dataSync()]);
      expect([...got['rows']!.dataSync()]).eql([-1, 0.5, 4, -1, 0.5, 4, 1, 2, 3]);
    });
    program.dispose();
  });

  it('hands out outputs of stored types as tensors that castFloat32 reads', async () => {
    const program = new Program();
    program.define('f', { x: { shape: [2], dtype: 'float32' } }, ({ x }) => ({
      outputs: { b: castTo(x!, 'bfloat16'), u: castTo(x!, 'uint8') },
    }));
    program.define('g', { b: { shape: [2], dtype: 'bfloat16' } }, ({ b }) => ({ outputs: { y: castFloat32(b!) } }));
    await program.compile();
    tf.tidy(() => {
      const { b, u } = program.runSync('f', { x: [1.00390625, 7] });
      expect(trueDtype(b!)).equal('bfloat16');
      expect([...castFloat32(b!).dataSync()]).eql([1, 7]);
      expect([...castTo(u!, 'int32').dataSync()]).eql([1, 7]);
      expect([...program.runSync('g', { b: b! })['y']!.dataSync()]).eql([1, 7]);
    });
    program.dispose();
  });

  for (const xla of [true, false]) {
    it(`repeats a function in the graph${xla ? '' : ', uncompiled'}: state, fed outputs, index, stop`, async () => {
      const program = new Program();
      program.variable('sum', { shape: [2], dtype: 'float32' });
      program.variable('n', { shape: [], dtype: 'int32' });
      program.variable('unused', { shape: [], dtype: 'float32' });
      const scalar = { shape: [], dtype: 'float32' } as const;
      program.define(
        'step',
        { x: scalar, k: scalar, i: { shape: [], dtype: 'int32' } },
        ({ x, k, i }, { sum, n }) => {
          const next = tf.add(tf.add(sum!, x!), tf.cast(i!, 'float32'));
          return {
            outputs: { next, twice: tf.mul(x!, k!), stop: tf.greater(tf.sum(next), 40) },
            assign: { sum: next, n: tf.add(n!, tf.scalar(1, 'int32')) },
          };
        },
        { xla },
      );
      program.defineLoop('loop', { body: 'step', steps: 6, feed: { x: 'twice' }, index: 'i', stop: 'stop' });
      await program.compile();
      // By hand: x = 1, 2, 4, 8; sums 1, 1+2+1, 4+4+2, 10+8+3.
      const out = program.callSync('loop', { x: 1, k: 2 });
      expect([...out['next']!]).eql([1, 1, 4, 4, 10, 10, 21, 21, 0, 0, 0, 0]);
      expect([...out['twice']!]).eql([2, 4, 8, 16, 0, 0]);
      expect([...out['stop']!]).eql([0, 0, 0, 1, 0, 0]);
      expect([...out['iterations']!]).eql([4]);
      expect(program.read('sum')).eql(Float32Array.of(21, 21));
      expect(program.read('n')).eql(Int32Array.of(4));
      expect(() => program.defineLoop('x', { body: 'step', steps: 2 })).throw(TracingError, 'before compile');
      program.dispose();
    });
  }

  for (const xla of [true, false]) {
    it(`hands inputs out one by one in a loop (xla ${xla})`, async () => {
      const program = new Program();
      program.variable('sum', { shape: [2], dtype: 'float32' });
      program.define(
        'step',
        {
          x: { shape: [2], dtype: 'float32' },
          k: { shape: [], dtype: 'int32' },
          scale: { shape: [], dtype: 'float32' },
        },
        ({ x, k, scale }, { sum }) => {
          const next = tf.add(sum!, tf.mul(tf.add(x!, tf.cast(k!, 'float32')), scale!));
          return { outputs: { next }, assign: { sum: next } };
        },
        { xla },
      );
      program.defineLoop('loop', { body: 'step', steps: 3, each: ['x', 'k'] });
      program.defineLoop('some', { body: 'step', steps: 3, each: ['x', 'k'], count: 'n' });
      await program.compile();
      // By hand: 10·(1+7, 2+7), then + 10·(3+8, 4+8), then + 10·(5+9, 6+9).
      const out = program.callSync('loop', { x: [1, 2, 3, 4, 5, 6], k: [7, 8, 9], scale: 10 });
      expect([...out['next']!]).eql([80, 90, 190, 210, 330, 360]);
      expect(program.read('sum')).eql(Float32Array.of(330, 360));
      program.zero();
      const given = { x: [1, 2, 3, 4, 5, 6], k: [7, 8, 9], scale: 10 };
      const two = program.callSync('some', { ...given, n: 2 });
      expect([...two['next']!]).eql([80, 90, 190, 210, 0, 0]);
      expect(program.read('sum')).eql(Float32Array.of(190, 210));
      expect([...program.callSync('some', { ...given, n: 9 })['iterations']!]).eql([3]);
      program.dispose();
    });
  }

  it('keeps its graph, takes a kept one instead of tracing, and traces anew when that is damaged or another', async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'graphs-'));
    let traces = 0;
    const run = async (key: string, factor: number): Promise<number[]> => {
      const program = new Program({ graphCache: { folder, key } });
      program.variable('total', { shape: [2], dtype: 'float32' });
      program.define('add', { x: { shape: [2], dtype: 'float32' } }, ({ x }, { total }) => {
        traces++;
        const sum = tf.add(total!, tf.mul(x!, factor));
        return { outputs: { sum }, assign: { total: sum } };
      });
      program.define('clear', {}, (_, { total }) => ({ assign: { total: tf.zerosLike(total!) } }));
      program.defineLoop('loop', { body: 'add', steps: 2, feed: { x: 'sum' } });
      await program.compile();
      const results = [program.callSync('add', { x: [1, 2] })['sum']!, program.callSync('loop', { x: [1, 1] })['sum']!];
      program.runSync('clear');
      expect(program.read('total')).eql(Float32Array.of(0, 0));
      program.dispose();
      return results.flatMap((r) => [...r]);
    };
    // By hand: 10·x; then the total plus 10·1, and that total plus 10 times itself.
    const tens = [10, 20, 20, 30, 220, 330];
    try {
      expect(await run('tens', 10)).eql(tens);
      const first = traces;
      expect(first).greaterThan(0);
      expect(await run('tens', 10)).eql(tens);
      expect(traces, 'a kept graph needs no trace').equal(first);
      expect((await run('twos', 2)).slice(0, 2)).eql([2, 4]);
      expect(traces).greaterThan(first);
      const second = traces;
      for (const name of fs.readdirSync(folder)) fs.truncateSync(path.join(folder, name, 'graph.pb'), 100);
      expect(await run('tens', 10)).eql(tens);
      expect(traces, 'a damaged graph is traced anew').greaterThan(second);
      for (const name of fs.readdirSync(folder)) fs.writeFileSync(path.join(folder, name, 'signatures.json'), '{"add"');
      expect(await run('tens', 10)).eql(tens);
      expect(fs.readdirSync(folder).length).equal(2);
      const third = traces;
      expect(await run('tens', 10)).eql(tens);
      expect(traces).equal(third);
      // a graph that TensorFlow would take: 10 has become 11
      const [ten, eleven] = [10, 11].map((value) => Buffer.from(Float32Array.of(value).buffer));
      let changed = 0;
      for (const name of fs.readdirSync(folder)) {
        const graph = path.join(folder, name, 'graph.pb');
        const bytes = fs.readFileSync(graph);
        for (let at; (at = bytes.indexOf(ten!)) >= 0; changed++) eleven!.copy(bytes, at);
        fs.writeFileSync(graph, bytes);
      }
      expect(changed).greaterThan(0);
      expect(await run('tens', 10)).eql(tens);
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  });

  it('asks for bytes while TensorFlow takes the graph in, and tells what fails there', async () => {
    const told: string[] = [];
    const make = (init: () => Float32Array): Program => {
      const program = new Program({ name: 'p', onCompile: (_, phase) => void told.push(phase) });
      program.variable('x', { shape: [2], dtype: 'float32', init: () => (told.push('bytes'), init()) });
      program.define('f', {}, (_, { x }) => ({ outputs: { y: tf.add(x!, 1) } }));
      return program;
    };
    const program = make(() => Float32Array.of(1, 2));
    told.length = 0;
    await program.compile();
    expect(told).eql(['bytes', 'load', 'upload']);
    expect([...((await program.call('f'))['y'] as Float32Array)]).eql([2, 3]);
    program.dispose();
    const broken = make(() => {
      throw new RangeError('no such file');
    });
    expect(await rejection(broken.compile())).instanceOf(RangeError);
    expect(await rejection(broken.compile())).instanceOf(DisposedError);
  });

  it('hands large functions over when they are called, in the order of calls', async () => {
    const program = new Program({ deferTracing: true });
    program.variable('x', { shape: [2], dtype: 'float32', init: () => Float32Array.of(1, 2) });
    const many = (x: tf.Tensor, factor: number): tf.Tensor => {
      for (let i = 0; i < 30; i++) x = tf.sub(tf.mul(x, factor + i), tf.mul(x, factor + i - 1)); // the same x
      return x;
    };
    const step =
      (factor: number) =>
      (_: unknown, { x }: Record<string, tf.Tensor>): { assign: Record<string, tf.Tensor> } => ({
        assign: { x: tf.mul(many(x!, factor), factor) },
      });
    program.define('double', {}, step(2));
    program.define('triple', {}, step(3));
    program.define('add', {}, (_, { x }) => ({ assign: { x: tf.add(x!, 1) } }));
    await program.compile();
    // a small function that is there already is called after a large one that is not
    const calls = ['add', 'double', 'add', 'triple', 'double'].map((name) => program.call(name));
    await Promise.all(calls);
    expect([...program.read('x')]).eql([30, 42]); // ((x + 1) * 2 + 1) * 3 * 2
    program.callSync('triple');
    expect([...program.read('x')]).eql([90, 126]);
    program.dispose();

    const sync = new Program({ deferTracing: true });
    sync.variable('x', { shape: [2], dtype: 'float32', init: () => Float32Array.of(1, 2) });
    sync.define('double', {}, step(2));
    await sync.compile();
    sync.callSync('double');
    expect([...sync.read('x')]).eql([2, 4]);
    sync.dispose();
  });

  it('chooses by elements, and by rows, whichever op is compiled for it', async () => {
    const program = new Program();
    program.define(
      'f',
      {
        rows: { shape: [2], dtype: 'bool' },
        all: { shape: [2, 3], dtype: 'bool' },
        x: { shape: [2, 3], dtype: 'float32' },
      },
      ({ rows, all, x }) => {
        const other = tf.neg(x!);
        const byRows = rawOp('Select', [rows!, x!, other], { T: attr.type(1) })[0]!;
        return { outputs: { byRows, each: tf.where(all!, x!, other) } };
      },
    );
    await program.compile();
    const x = Float32Array.of(1, NaN, -0, 4, Infinity, 6);
    const { byRows, each } = await program.call('f', { rows: [0, 1], all: [1, 0, 1, 0, 1, 1], x });
    const same = (got: unknown, want: number[]): void =>
      want.forEach((value, i) => expect(Object.is((got as Float32Array)[i], value), `${i}`).equal(true));
    same(byRows, [-1, NaN, 0, 4, Infinity, 6]);
    same(each, [1, NaN, -0, -4, Infinity, 6]);
    program.dispose();
    const graph = new FunctionGraph('g');
    const condition = graph.parameter('c', [2], 'bool');
    const [wide, narrow] = [graph.parameter('w', [2, 3], 'float32'), graph.parameter('n', [2], 'float32')];
    const add = (branch: Value): void =>
      void graph.add('Select', [condition, branch, branch], { T: attr.type(1) }, [{ ref: 'output:0', ...branch }]);
    add(wide);
    add(narrow);
    expect(graph.ops()).eql(['Select', 'SelectV2']);
  });

  it('says what is wrong with a loop', () => {
    const program = new Program();
    program.define('f', { x: { shape: [2], dtype: 'float32' } }, ({ x }) => ({ outputs: { y: tf.sum(x!) } }));
    expect(() => program.defineLoop('l', { body: 'f', steps: 2, feed: { x: 'y' } })).throw(
      TracingError,
      "output 'y' is float32[], input 'x' is float32[2]",
    );
    expect(() => program.defineLoop('l', { body: 'f', steps: 0 })).throw(TracingError, 'steps');
    expect(() => program.defineLoop('l', { body: 'f', steps: 2, count: 'x' })).throw(TracingError, "count names 'x'");
    expect(() => program.defineLoop('l', { body: 'f', steps: 2, each: ['z'] })).throw(TracingError, "each names 'z'");
    expect(() => program.defineLoop('l', { body: 'f', steps: 1, stop: 'y' })).throw(TracingError, 'bool scalar');
    expect(() => program.defineLoop('l', { body: 'g', steps: 1 })).throw(ArgumentError, "no function 'g'");
    program.dispose();
  });

  it('runs nested while loops that use tensors of the code around them', async () => {
    const program = new Program();
    program.define('f', { x: { shape: [], dtype: 'float32' } }, ({ x }) => {
      const [, total] = whileLoop(
        ([i]) => tf.less(i!, 3),
        ([i, sum]) => {
          const [, inner] = whileLoop(
            ([j]) => tf.less(j!, 2),
            ([j, s]) => [tf.add(j!, 1), tf.add(s!, tf.mul(x!, tf.add(i!, 1)))],
            [tf.scalar(0), sum!],
          );
          return [tf.add(i!, 1), inner!];
        },
        [tf.scalar(0), tf.scalar(0)],
      );
      return { outputs: { total: total! } };
    });
    await program.compile();
    expect([...program.callSync('f', { x: 5 })['total']!]).eql([60]);
    program.dispose();
    const other = new Program();
    const define = (fn: (x: tf.Tensor) => tf.Tensor): void =>
      other.define('g', { x: { shape: [], dtype: 'float32' } }, ({ x }) => ({ outputs: { y: fn(x!) } }));
    expect(() =>
      define(
        (x) =>
          whileLoop(
            ([a]) => a!,
            ([a]) => [a!],
            [x],
          )[0]!,
      ),
    ).throw(TracingError, 'bool scalar');
    expect(() =>
      define(
        (x) =>
          whileLoop(
            ([a]) => tf.less(a!, 1),
            ([a]) => [tf.stack([a!, a!])],
            [x],
          )[0]!,
      ),
    ).throw(TracingError, 'becomes float32[2]');
    expect(() =>
      define((x) =>
        tf.grad(
          (t) =>
            whileLoop(
              ([a]) => tf.less(a!, 1),
              ([a]) => [tf.add(a!, 1)],
              [t],
            )[0]!,
        )(x),
      ),
    ).throw(TracingError, 'no gradient');
    expect(() =>
      whileLoop(
        () => tf.scalar(true),
        (a) => a,
        [],
      ),
    ).throw(TracingError, 'traced code only');
    other.dispose();
  });

  it('refuses what does not fit, and stays usable', async () => {
    const program = new Program({ name: 'model' });
    program.variable('w', { shape: [2], dtype: 'float32' });
    expect(() => program.variable('w', { shape: [2], dtype: 'float32' })).throw(TracingError, 'taken');
    expect(() => program.variable('1 w', { shape: [2], dtype: 'float32' })).throw(TracingError, 'not allowed');
    expect(() => program.variable('z', { shape: [0], dtype: 'float32' })).throw(TracingError, 'positive');
    const x = { x: { shape: [2], dtype: 'float32' } } as const;
    program.define('f', x, (t, { w }) => ({ outputs: { y: tf.add(t['x']!, w!) } }));
    expect(() => program.define('f', x, (t) => ({ outputs: { y: t['x']! } }))).throw(TracingError, 'taken');
    expect(() => program.define('g', x, (_, v) => ({ outputs: { y: v['nope']! } }))).throw(TracingError, "'nope'");
    expect(() => program.define('g', x, () => ({ assign: { w: tf.zeros([3]) } }))).throw(TracingError, 'float32[3]');
    expect(() => program.define('g', x, () => ({ assign: { w: tf.zeros([2], 'int32') } }))).throw(
      TracingError,
      'int32[2]',
    );
    let leaked: tf.Tensor | undefined;
    program.define('h', x, (t) => ((leaked = tf.keep(tf.neg(t['x']!))), { outputs: {} }));
    expect(() => program.define('i', x, () => ({ outputs: { y: leaked! } }))).throw(TracingError);
    expect(() => leaked!.dataSync()).throw(TracingError, 'read while tracing');
    leaked!.dispose();
    expect(() => program.runSync('f', { x: [1, 2] })).throw(TracingError, 'compile() first');
    await program.compile();
    expect(() => program.runSync('f', {})).throw(ArgumentError, "'x' is missing");
    expect(() => program.runSync('f', { x: [1, 2, 3] })).throw(ArgumentError, '3 values');
    expect(() => program.runSync('f', { x: Int32Array.of(1, 2) })).throw(ArgumentError, 'Int32Array');
    expect(() => program.runSync('f', { x: tf.zeros([3]) })).throw(ArgumentError, 'float32[3]');
    expect(() => program.runSync('k', {})).throw(ArgumentError, "no function 'k', only f");
    expect(() => program.assign('w', new Uint8Array(7))).throw(ArgumentError, '7 bytes, expected 8');
    expect(() => program.assign('v', new Uint8Array(8))).throw(ArgumentError, "no variable 'v'");
    expect([...program.callSync('f', { x: [1, 2] })['y']!]).eql([1, 2]);
    program.dispose();
    program.dispose();
    expect(() => program.runSync('f', { x: [1, 2] })).throw(DisposedError);
    expect(() => program.variable('q', { shape: [1], dtype: 'float32' })).throw(DisposedError);
  });

  it('refuses initial bytes of the wrong length and frees what it had', async () => {
    const program = new Program();
    program.variable('w', { shape: [2], dtype: 'bfloat16', init: () => new Uint8Array(3) });
    const error = await rejection(program.compile());
    expect(error).instanceOf(ArgumentError);
    expect(error.message).contain("'w': got 3 bytes, expected 4 for bfloat16[2]");
    expect(() => program.runSync('f')).throw(DisposedError);
  });

  it('stays usable after a call that fails in TensorFlow', async () => {
    const program = new Program();
    // TensorFlow checks the index of a gather on a CPU when it is not compiled; on a GPU it gives zeros, and nothing fails
    const { isUsingGpuDevice: gpu } = tf.backend() as unknown as { isUsingGpuDevice: boolean };
    program.define(
      'pick',
      { i: { shape: [1], dtype: 'int32' } },
      ({ i }) => {
        const row = rawOp('GatherV2', [tf.tensor1d([5, 6]), i!, tf.scalar(0, 'int32')], {
          batch_dims: attr.int(0),
        })[0]!;
        return { outputs: { row } };
      },
      { xla: false },
    );
    await program.compile();
    expect([...program.callSync('pick', { i: [1] })['row']!]).eql([6]);
    const before = tensorCount();
    if (gpu) expect([...program.callSync('pick', { i: [7] })['row']!]).eql([0]);
    else expect(() => program.callSync('pick', { i: [7] })).throw(DeviceError, 'indices[0] = 7 is not in [0, 2)');
    expect(tensorCount()).eql(before);
    expect([...program.callSync('pick', { i: [0] })['row']!]).eql([5]);
    program.dispose();
  });

  it('reports what it compiles', async () => {
    const seen: string[] = [];
    const program = new Program({
      name: 'p',
      onCompile: (name, phase, ms) => seen.push(`${name} ${phase} ${ms === null ? 'starts' : ms >= 0}`),
    });
    program.define('f', {}, () => ({ outputs: { y: tf.scalar(1) } }));
    await program.compile();
    program.callSync('f');
    program.callSync('f');
    expect(seen).eql(['f trace true', 'p load true', 'p upload true', 'f compile starts', 'f compile true']);
    program.dispose();
  });
});
