import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { TracingError } from '../../../src/jit/errors.js';
import {
  castFloat32,
  matMulStored,
  outlineBorder,
  Program,
  whileLoop,
  type VariableDtype,
} from '../../../src/jit/index.js';
import { atOnce } from '../../../src/base/pieces.js';
import { encodeFloat32, toBfloat16 } from '../../../src/base/stored_dtypes.js';
import { cpuFeatures } from '../../../src/runtime/cpu.js';
import { OUTLINED } from '../../../src/jit/fusion/outline.js';
import { traceAtOnce } from '../../../src/jit/trace/backend.js';
import { traceFunction, type Traced } from '../../../src/jit/program/function.js';
import { outerGraph } from '../../../src/jit/program/outer_graph.js';
import type { DefineOptions, TracedFunction, TraceResult, VariableSpec } from '../../../src/jit/types.js';
import { useBackend } from '../../support/backends.js';

const LAYERS = 4;
const [T, D, M] = [12, 6, 10];

function variables(dtype: VariableDtype): Map<string, VariableSpec> {
  const map = new Map<string, VariableSpec>();
  const filled =
    (size: number, seed: number): VariableSpec['init'] =>
    () => {
      const values = Float32Array.from({ length: size }, (_, i) => Math.fround(((i * 7 + seed) % 13) / 8 - 0.75));
      return dtype === 'float32' ? values : encodeFloat32(values, 'BF16');
    };
  for (let i = 0; i < LAYERS; i++) {
    map.set(`up${i}`, { shape: [M, D], dtype, init: filled(M * D, i) });
    map.set(`down${i}`, { shape: [D, M], dtype, init: filled(M * D, i + 5) });
    map.set(`log${i}`, { shape: [D], dtype: 'float32' });
  }
  map.set('sums', { shape: [LAYERS, D], dtype: 'float32' });
  return map;
}

/** A residual network with a state per layer: its sums over time, kept in one variable, as the model's convolution states are. */
function network(
  { x }: Record<string, tf.Tensor>,
  vars: Record<string, tf.Tensor>,
  between = (h: tf.Tensor): tf.Tensor => h,
): TraceResult {
  const before = tf.unstack(vars['sums']!, 0);
  const sums: tf.Tensor[] = [];
  let h: tf.Tensor = x!;
  for (let i = 0; i < LAYERS; i++) {
    h = between(h);
    const scale = tf.neg(tf.exp(vars[`log${i}`]!)); // made of weights alone
    const inner = tf.sin(matMulStored(tf.mul(h, scale) as tf.Tensor2D, vars[`up${i}`]!));
    h = tf.add(h, matMulStored(inner as tf.Tensor2D, vars[`down${i}`]!));
    sums.push(tf.add(before[i]!, tf.sum(h, 0)));
  }
  return { outputs: { h: between(h) }, assign: { sums: tf.stack(sums, 0) } };
}

/** The network in plain loops; `round` stands before and after every product. */
function loops(x: Float32Array, round: (value: number) => number): { h: number[]; sums: number[] } {
  const element = (i: number, seed: number): number => ((i * 7 + seed) % 13) / 8 - 0.75;
  const product = (a: number[], inner: number, outer: number, seed: number): number[] =>
    Array.from({ length: T * outer }, (_, at) => {
      const [t, j] = [Math.floor(at / outer), at % outer];
      let sum = 0;
      for (let k = 0; k < inner; k++) sum += round(a[t * inner + k]!) * element(j * inner + k, seed);
      return round(sum);
    });
  let h = [...x];
  const sums: number[] = [];
  for (let i = 0; i < LAYERS; i++) {
    const negated = h.map((value) => -value); // exp(0) = 1
    const up = product(negated, D, M, i).map(Math.sin);
    const down = product(up, M, D, i + 5);
    h = h.map((value, k) => value + down[k]!);
    for (let j = 0; j < D; j++) sums.push(h.reduce((total, value, k) => total + (k % D === j ? value : 0), 0));
  }
  return { h, sums };
}

const INPUTS = { x: { shape: [T, D], dtype: 'float32' as const } };

function traced(
  fn: TracedFunction,
  specs: Map<string, VariableSpec>,
  options: DefineOptions = { tensorflowProducts: true },
): Traced {
  return traceAtOnce(traceFunction('f', INPUTS, specs, (given, vars) => fn(given, vars()), fn, options));
}

/** The same with borders between its layers. */
const bordered: TracedFunction = (inputs, vars) => network(inputs, vars, outlineBorder);

describe('outlined functions', function () {
  this.timeout(60_000);
  before(() => useBackend('tensorflow'));

  for (const dtype of ['float32', 'bfloat16'] as const) {
    it(`gives what plain loops give, states included (${dtype})`, async () => {
      const program = new Program();
      for (const [name, spec] of variables(dtype)) program.variable(name, spec);
      program.define('split', INPUTS, network, { tensorflowProducts: true });
      await program.compile();
      const x = Float32Array.from({ length: T * D }, (_, i) => Math.cos(i));
      program.callSync('split', { x });
      const { h } = program.callSync('split', { x });
      // a processor without instructions for bfloat16 multiplies in float32
      const rounds = dtype === 'bfloat16' && cpuFeatures().some((name) => /bf16/.test(name));
      const plain = loops(x, rounds ? toBfloat16 : (value): number => value);
      // where sums of float32 and float64 differ, a rounding may fall on the other side: 2^-8 of one element
      const tolerance = rounds ? 4e-3 : 1e-6;
      const near = (got: ArrayLike<number>, want: number[]): void => {
        const largest = Math.max(...want.map(Math.abs));
        want.forEach((value, i) => expect(Math.abs(got[i]! - value) / largest).below(tolerance));
      };
      near(h as Float32Array, plain.h);
      near(
        program.read('sums') as Float32Array,
        plain.sums.map((value) => 2 * value),
      );
      program.dispose();
    });
  }

  it('one program a layer gives what one program gives, and is the same for all layers', async () => {
    const runs = [false, true].map(async (compileOutlined) => {
      const program = new Program();
      for (const [name, spec] of variables('float32')) program.variable(name, spec);
      program.define('f', INPUTS, bordered, { compileOutlined });
      await program.compile();
      const x = Float32Array.from({ length: T * D }, (_, i) => Math.cos(i));
      program.callSync('f', { x });
      const h = program.callSync('f', { x })['h'] as Float32Array;
      const sums = program.read('sums') as Float32Array;
      program.dispose();
      return [...h, ...sums];
    });
    const [whole, apart] = (await Promise.all(runs)) as [number[], number[]];
    apart.forEach((value, i) => expect(value).closeTo(whole[i]!, 1e-5 * Math.abs(whole[i]!)));

    const { library, clusters } = traced(bordered, variables('float32'), { compileOutlined: true });
    const names = library.filter((fn) => fn.name.startsWith(OUTLINED)).map((fn) => fn.name);
    expect(clusters).equal(true);
    expect(names.length).equal(LAYERS + 2);
    expect(new Set(names).size).equal(3);
    expect(traced(bordered, variables('float32'), {}).clusters).equal(false);
  });

  it('compiles the functions outlined from a layer once for all layers', () => {
    const { library, text, clusters } = traced(network, variables('float32'));
    expect(clusters).equal(true);
    const names = library.filter((fn) => fn.name.startsWith(OUTLINED)).map((fn) => fn.name);
    expect(names.length).equal(2 * LAYERS + 1);
    // the first, the middle of a layer, what lies between layers, the last
    expect(new Set(names).size).equal(4);
    expect(text.nodes.filter((node) => node.op === 'MatMul').length).equal(2 * LAYERS);
    const inside = library.flatMap((fn) => fn.nodes.map((node) => node.op));
    expect(inside).not.include('MatMul');
    expect(inside).not.include('ReadVariableOp');
  });

  it('nothing asks what calls of programs of XLA do with old variables where TensorFlow rewrites nothing', () => {
    const fn = traced(network, variables('float32'));
    const texts = (rewrites: boolean): string[] => {
      const { graph, parts } = atOnce(outerGraph(variables('float32'), [fn], { rewrites, spares: !rewrites }));
      expect(Object.keys(parts)).eql(rewrites ? [] : [fn.name]);
      const bytes = Buffer.concat([graph, ...Object.values(parts)]);
      return bytes.toString('latin1').split('^old_variable');
    };
    const calls = fn.text.nodes.filter((node) => node.op === 'StatefulPartitionedCall').length;
    expect(calls).equal(2 * LAYERS + 1);
    expect(texts(false).length - 1).equal(calls + 1); // and the call of the function
    expect(texts(true).length).equal(1);
  });

  it('keeps what is large and used late out of the first function', () => {
    const specs = variables('float32');
    const { library } = traced((inputs, vars) => {
      const first = network(inputs, vars).outputs!['h']!;
      const wide = tf.mul(castFloat32(vars['up0']!), 2); // stands for a dequantised matrix
      return { outputs: { y: matMulStored(first as tf.Tensor2D, wide) } };
    }, specs);
    const outlined = library.filter((fn) => fn.name.startsWith(OUTLINED));
    const makes = outlined.map((fn) => fn.nodes.filter((node) => node.op === 'Mul').length);
    expect(makes.at(-1)).equal(1);
    expect(makes[0]).equal(1); // the scale of the first layer, and not the matrix
  });

  it('leaves few rows, loops and functions without products whole', () => {
    const specs = variables('float32');
    const few: TracedFunction = ({ x }, vars) => ({
      outputs: { y: matMulStored(tf.slice(x as tf.Tensor2D, [0, 0], [1, D]), vars['up0']!) },
    });
    expect(traced(few, specs).clusters).equal(false);
    expect(traced(({ x }) => ({ outputs: { y: tf.sin(x!) } }), specs).clusters).equal(false);
    const loop: TracedFunction = ({ x }, vars) => {
      const [, y] = whileLoop(
        ([i]) => tf.less(i!, tf.scalar(2, 'int32')),
        ([i, h]) => {
          const inner = matMulStored(h as tf.Tensor2D, vars['up0']!);
          return [tf.add(i!, tf.scalar(1, 'int32')), matMulStored(inner, vars['down0']!)];
        },
        [tf.scalar(0, 'int32'), x!],
      );
      return { outputs: { y: y! } };
    };
    expect(traced(loop, specs).clusters).equal(false);
  });

  it('refuses gradients through a kernel and never leaves them out', () => {
    const specs = variables('float32');
    const fn: TracedFunction = ({ x }, vars) => {
      const loss = (h: tf.Tensor): tf.Scalar =>
        tf.sum(tf.add(h, matMulStored(matMulStored(h as tf.Tensor2D, vars['up0']!), vars['down0']!)));
      return { outputs: { y: tf.grad(loss)(x!) } };
    };
    expect(() => traced(fn, specs)).throw(TracingError, /gradient/);
  });
});
