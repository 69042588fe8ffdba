/** Every op with a shape function: types and shapes inferred while tracing, and values of the compiled graph, against eager execution. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { TracingError } from '../../../src/jit/errors.js';
import {
  attr,
  bitcast,
  castTo,
  constantOf,
  dtypeAttr,
  Program,
  rawOp,
  sumInDtype,
  tracedOps,
  trueDtype,
} from '../../../src/jit/index.js';
import { FunctionGraph } from '../../../src/jit/trace/graph.js';
import { symbolic as makeSymbolic, trace } from '../../../src/jit/trace/backend.js';
import { useBackend } from '../../support/backends.js';

type Inputs = Record<'x' | 'y' | 'v' | 'm' | 'img' | 'vol' | 'i' | 'j' | 'b' | 'c', tf.Tensor>;
type Case = (t: Inputs) => tf.Tensor | tf.Tensor[];

const SHAPES = {
  x: [2, 3],
  y: [2, 3],
  v: [3],
  m: [3, 4],
  img: [1, 6, 6, 2],
  vol: [1, 4, 4, 4, 1],
  i: [4],
  j: [2, 2],
  b: [2, 3],
  c: [1],
};

const unary =
  'abs acosh asin asinh atan atanh ceil cos cosh elu erf exp expm1 floor log1p logSoftmax neg relu relu6 round selu sigmoid sign sin sinh softmax softplus sqrt square step tan tanh isFinite isInf isNaN reciprocal rsqrt log acos prelu1 leakyRelu';

function unaryCase(name: string): Case {
  if (name === 'prelu1') return ({ x }) => tf.prelu(x, tf.scalar(0.1));
  if (name === 'acosh') return ({ x }) => tf.acosh(tf.add(tf.abs(x), 1));
  if (['log', 'rsqrt', 'sqrt', 'log1p'].includes(name)) return ({ x }) => tf[name as 'log'](tf.add(tf.abs(x), 0.5));
  return ({ x }) => tf[name as 'abs'](x);
}

const binary =
  'add sub mul div maximum minimum squaredDifference atan2 pow mod floorDiv divNoNan equal notEqual greater greaterEqual less lessEqual';

/** dimension_numbers of XlaDotV2 that contract axis 1 of both sides. */
const dotNumbers = Buffer.from([0x0a, 1, 1, 0x12, 1, 1]).toString('latin1');

const cases: Record<string, Case> = {
  ...Object.fromEntries(unary.split(' ').map((name) => [name, unaryCase(name)])),
  ...Object.fromEntries(
    binary
      .split(' ')
      .map((name) => [
        name,
        ({ x, v }: Inputs) =>
          tf[name as 'add'](name === 'pow' ? tf.abs(x) : x, name === 'floorDiv' ? tf.add(tf.abs(v), 1) : v),
      ]),
  ),
  int32Arithmetic: ({ i }) => [
    tf.add(i, 3),
    tf.mul(i, i),
    tf.sub(i, 1),
    tf.floorDiv(i, tf.scalar(2, 'int32')),
    tf.abs(tf.neg(i)),
    tf.less(i, 2),
  ],
  logical: ({ b }) => [tf.logicalAnd(b, tf.logicalNot(b)), tf.logicalOr(b, b), tf.logicalXor(b, b)],
  allAny: ({ b }) => [tf.all(b), tf.any(b, 1, true), tf.all(b, 0)],
  reductions: ({ x }) => [
    tf.sum(x),
    tf.sum(x, 1),
    tf.mean(x, -1, true),
    tf.max(x, 0),
    tf.min(x, [0, 1]),
    tf.prod(x, 1),
    tf.logSumExp(x, 1),
    tf.norm(x),
  ],
  moments: ({ x }) => Object.values(tf.moments(x, 0)),
  argReductions: ({ x }) => [tf.argMax(x, -1), tf.argMin(x, 0)],
  matMul: ({ x, m }) => [
    tf.matMul(x as tf.Tensor2D, m as tf.Tensor2D),
    tf.matMul(x as tf.Tensor2D, x as tf.Tensor2D, true),
    tf.matMul(x as tf.Tensor2D, x as tf.Tensor2D, false, true),
  ],
  batchMatMul: ({ x, m }) => tf.matMul(tf.reshape(x, [2, 1, 1, 3]), tf.reshape(m, [1, 3, 4])),
  dot: ({ x, v }) => [tf.dot(x, v), tf.outerProduct(v as tf.Tensor1D, v as tf.Tensor1D)],
  einsum: ({ x, m }) => tf.einsum('ij,jk->ki', x, m),
  fused: ({ x, m }) =>
    tf.fused.matMul({ a: x as tf.Tensor2D, b: m as tf.Tensor2D, bias: tf.ones([4]), activation: 'relu' }),
  reshapes: ({ x }) => [
    tf.reshape(x, [3, -1]),
    tf.expandDims(x, 1),
    tf.squeeze(tf.reshape(x, [1, 2, 3, 1])),
    tf.transpose(x),
    tf.reverse(x, 1),
    tf.clone(x),
  ],
  slices: ({ x }) => [
    tf.slice(x, [0, 1], [2, -1]),
    tf.stridedSlice(x, [0, 2], [2, 0], [1, -1]),
    tf.stridedSlice(x, [1], [2], [1], 0, 0, 0, 0, 1),
  ],
  stridedMasks: ({ img }) => [
    tf.stridedSlice(img, [0, 1], [0, 5], [1, 2], 0, 0, 1),
    tf.stridedSlice(img, [0, 0], [1, 0], [1, 1], 0, 2, 0, 2),
  ],
  joins: ({ x, y }) => [
    tf.concat([x, y], 0),
    tf.concat([x, y], -1),
    tf.stack([x, y], 1),
    ...tf.unstack(x, 1),
    ...tf.split(x, [1, 2], 1),
    ...tf.split(x, 2),
  ],
  addN: ({ x, y }) => tf.addN([x, y, x]),
  pads: ({ x }) => [
    tf.pad(
      x,
      [
        [1, 0],
        [0, 2],
      ],
      3,
    ),
    tf.mirrorPad(
      x,
      [
        [0, 1],
        [1, 1],
      ],
      'reflect',
    ),
  ],
  tiles: ({ x, v }) => [tf.tile(x, [2, 1]), tf.broadcastTo(v, [2, 3])],
  gathers: ({ x, i, j }) => [
    tf.gather(x, tf.minimum(i, tf.scalar(1, 'int32')) as tf.Tensor1D),
    tf.gather(x, tf.minimum(j, tf.scalar(2, 'int32')), 1),
    tf.gatherND(x, tf.minimum(j, tf.scalar(1, 'int32'))),
  ],
  scatters: ({ x, i, j }) => [
    tf.scatterND(tf.reshape(tf.minimum(i, tf.scalar(1, 'int32')), [4, 1]), tf.ones([4]), [3]),
    tf.unsortedSegmentSum(
      tf.gather(x, tf.minimum(i, tf.scalar(1, 'int32')) as tf.Tensor1D),
      tf.minimum(i, tf.scalar(2, 'int32')) as tf.Tensor1D,
      3,
    ),
    tf.oneHot(j as tf.Tensor2D, 5),
  ],
  scans: ({ x }) => [tf.cumsum(x, 1), tf.cumsum(x, 0, true, true), tf.cumprod(x, 1)],
  selects: ({ x, y, b }) => [
    tf.where(b, x, y),
    rawOp('SelectV2', [b, x, tf.scalar(0)])[0]!,
    rawOp('Select', [tf.tensor1d([true, false]), x, y])[0]!, // by rows
    tf.clipByValue(x, -0.5, 0.5),
  ],
  constants: ({ x }) => [
    tf.fill([2, 2], 7),
    tf.zerosLike(x),
    tf.onesLike(x),
    tf.range(0, 10, 3),
    tf.linspace(0, 1, 5),
    tf.eye(3),
    tf.ones([20, 3]),
    tf.range(5, 0, -2, 'int32'),
  ],
  topk: ({ x }) => Object.values(tf.topk(x, 2)),
  diag: ({ v }) => tf.diag(v),
  bandPart: ({ m }) => tf.linalg.bandPart(m, 1, 0),
  bincount: ({ i }) => tf.bincount(i as tf.Tensor1D, tf.ones([4]), 5),
  casts: ({ x, i, b }) => [tf.cast(x, 'int32'), tf.cast(i, 'float32'), tf.cast(b, 'int32'), tf.cast(x, 'bool')],
  conv2d: ({ img }) => [
    tf.conv2d(img as tf.Tensor4D, tf.ones([3, 3, 2, 4]), 2, 'same'),
    tf.conv2d(img as tf.Tensor4D, tf.ones([3, 2, 2, 1]), 1, 'valid', 'NHWC', [2, 1]),
  ],
  conv1d: ({ img }) => tf.conv1d(tf.reshape(img, [1, 36, 2]) as tf.Tensor3D, tf.ones([3, 2, 2]), 2, 'same'),
  depthwise: ({ img }) => tf.depthwiseConv2d(img as tf.Tensor4D, tf.ones([3, 3, 2, 2]), 1, 'valid'),
  conv3d: ({ vol }) => tf.conv3d(vol as tf.Tensor5D, tf.ones([2, 2, 2, 1, 3]), 1, 'same'),
  convTranspose: ({ img }) => tf.conv2dTranspose(img as tf.Tensor4D, tf.ones([2, 2, 3, 2]), [1, 12, 12, 3], 2, 'same'),
  pools: ({ img, vol }) => [
    tf.maxPool(img as tf.Tensor4D, 2, 2, 'valid'),
    tf.avgPool(img as tf.Tensor4D, 3, 2, 'same'),
    tf.maxPool3d(vol as tf.Tensor5D, 2, 2, 'valid'),
    tf.avgPool3d(vol as tf.Tensor5D, 2, 2, 'valid'),
  ],
  gradConv: ({ img }) =>
    tf.grads((a, f) => tf.sum(tf.square(tf.conv2d(a as tf.Tensor4D, f as tf.Tensor4D, 1, 'same'))))([
      img,
      tf.ones([3, 3, 2, 2]),
    ]),
  gradDepthwise: ({ img }) =>
    tf.grads((a, f) => tf.sum(tf.square(tf.depthwiseConv2d(a as tf.Tensor4D, f as tf.Tensor4D, 1, 'same'))))([
      img,
      tf.ones([3, 3, 2, 1]),
    ]),
  gradConv3d: ({ vol }) =>
    tf.grads((a, f) => tf.sum(tf.square(tf.conv3d(a as tf.Tensor5D, f as tf.Tensor5D, 1, 'same'))))([
      vol,
      tf.ones([2, 2, 2, 1, 1]),
    ]),
  gradPools: ({ img }) =>
    tf.grad((a) =>
      tf.add(
        tf.sum(tf.square(tf.maxPool(a as tf.Tensor4D, 2, 2, 'valid'))),
        tf.sum(tf.square(tf.avgPool(a as tf.Tensor4D, 2, 2, 'valid'))),
      ),
    )(img),
  gradPools3d: ({ vol }) =>
    tf.grad((a) =>
      tf.add(
        tf.sum(tf.square(tf.maxPool3d(a as tf.Tensor5D, 2, 2, 'valid'))),
        tf.sum(tf.square(tf.avgPool3d(a as tf.Tensor5D, 2, 2, 'valid'))),
      ),
    )(vol),
  gradElementwise: ({ x }) =>
    tf.grad((a) => tf.sum(tf.add(tf.elu(a), tf.mul(tf.softplus(a), tf.tanh(tf.sigmoid(tf.selu(a)))))))(x),
  gradGather: ({ x, i }) =>
    tf.grad((a) => tf.sum(tf.square(tf.gather(a, tf.minimum(i, tf.scalar(1, 'int32')) as tf.Tensor1D))))(x),
  gradSlices: ({ x }) =>
    tf.grad((a) =>
      tf.sum(
        tf.mul(
          tf.concat(
            [
              tf.slice(a, [0, 1], [2, 2]),
              tf.pad(a, [
                [0, 0],
                [1, 1],
              ]),
            ],
            1,
          ),
          tf.cumsum(tf.tile(a, [1, 3]).slice([0, 0], [2, 7]), 1),
        ),
      ),
    )(x),
  gradReduce: ({ x }) => tf.grad((a) => tf.sum(tf.add(tf.max(a, 1), tf.add(tf.mean(a, 1), tf.prod(a, 1)))))(x),
  gradSoftmax: ({ x, y }) =>
    tf.grad((a) => tf.sum(tf.mul(tf.logSoftmax(a as tf.Tensor2D), tf.softmax(tf.mul(a, y)))))(x),
  gradWhere: ({ x, b }) => tf.grad((a) => tf.sum(tf.where(b, tf.square(a), tf.sqrt(tf.abs(a)))))(x),
  batchNorm: ({ img }) =>
    tf.batchNorm(
      img as tf.Tensor4D,
      tf.tensor1d([0.1, 0.2]),
      tf.tensor1d([1, 2]),
      tf.tensor1d([0.5, 0.5]),
      tf.tensor1d([1, 2]),
    ),
  lrn: ({ img }) => tf.localResponseNormalization(img as tf.Tensor4D),
  spaceBatch: ({ img }) => [
    tf.spaceToBatchND(
      img,
      [2, 2],
      [
        [0, 0],
        [0, 2],
      ],
    ),
    tf.batchToSpaceND(
      tf.reshape(img, [4, 3, 3, 2]),
      [2, 2],
      [
        [0, 1],
        [1, 0],
      ],
    ),
  ],
  depthToSpace: ({ img }) => tf.depthToSpace(tf.reshape(img, [1, 3, 3, 8]) as tf.Tensor4D, 2),
  resize: ({ img }) => [
    tf.image.resizeBilinear(img as tf.Tensor4D, [3, 4]),
    tf.image.resizeNearestNeighbor(img as tf.Tensor4D, [12, 3]),
  ],
  gradResize: ({ img }) => tf.grad((a) => tf.sum(tf.square(tf.image.resizeBilinear(a as tf.Tensor4D, [3, 4]))))(img),
  flip: ({ img }) => tf.image.flipLeftRight(img as tf.Tensor4D),
  complex: ({ x, y }) => [tf.real(tf.complex(x, y)), tf.imag(tf.complex(x, y)), tf.abs(tf.complex(x, y))],
  fft: ({ x, y }) => [tf.real(tf.fft(tf.complex(x, y))), tf.imag(tf.ifft(tf.complex(x, y)))],
  bits: ({ i }) => {
    const [a, b] = [castTo(i, 'uint8'), constantOf([3], [], 'uint8')];
    return ['BitwiseAnd', 'BitwiseOr', 'BitwiseXor', 'RightShift', 'LeftShift'].map((op) =>
      tf.cast(castTo(rawOp(op, [a, b])[0]!, 'int32'), 'float32'),
    );
  },
  intTypes: ({ i }) =>
    (['int8', 'int16', 'uint8', 'int64', 'uint16', 'bfloat16', 'float16'] as const).map((t) =>
      castTo(castTo(i, t), 'int32'),
    ),
  invert: ({ i }) => rawOp('Invert', [i])[0]!,
  bitcasts: ({ x, i }) => [
    bitcast(x, 'int32'),
    bitcast(i, 'float32'),
    castTo(bitcast(i, 'uint8'), 'int32'),
    castTo(bitcast(bitcast(i, 'int16'), 'int32'), 'float32'),
  ],
  biasAdd: ({ x, v }) => rawOp('BiasAdd', [x, v])[0]!,
  matMulV3: ({ x, m }) => rawOp('BatchMatMulV3', [x, m], { Tout: dtypeAttr('float32') })[0]!,
  scatterArith: ({ x }) =>
    ['TensorScatterAdd', 'TensorScatterMax'].map(
      (op) => rawOp(op, [x, tf.tensor2d([[1]], [1, 1], 'int32'), tf.ones([1, 3])])[0]!,
    ),
  gradHelpers: ({ x, y }) =>
    ['TanhGrad', 'SigmoidGrad', 'SqrtGrad', 'RsqrtGrad', 'Xlogy'].map(
      (op) => rawOp(op, [tf.add(tf.abs(x), 1), tf.abs(y)])[0]!,
    ),
  rawUnary: ({ x }) => ['LogSoftmax', 'Rint'].map((op) => rawOp(op, [x])[0]!),
  rawOps: ({ x, m, v }) => [
    rawOp('Identity', [x])[0]!,
    rawOp('AddV2', [x, v])[0]!,
    rawOp('Div', [x, tf.add(tf.abs(v), 1)])[0]!,
    rawOp('DivNoNan', [x, v])[0]!,
    rawOp('MatMul', [x, m])[0]!,
    rawOp('MatMul', [x, x], { transpose_a: attr.bool(true) })[0]!,
    rawOp('BroadcastTo', [v, tf.tensor1d([2, 3], 'int32')])[0]!,
    rawOp('MatrixBandPart', [m, tf.scalar(0, 'int32'), tf.scalar(-1, 'int32')])[0]!,
  ],
  tensorScatter: ({ x }) =>
    rawOp('TensorScatterUpdate', [x, tf.tensor2d([[1]], [1, 1], 'int32'), tf.zeros([1, 3])])[0]!,
  gradLrn: ({ img }) => tf.grad((a) => tf.sum(tf.square(tf.localResponseNormalization(a as tf.Tensor4D))))(img),
  gradNearest: ({ img }) =>
    tf.grad((a) => tf.sum(tf.square(tf.image.resizeNearestNeighbor(a as tf.Tensor4D, [3, 3]))))(img),
  rawRoll: ({ x }) => rawOp('Roll', [x, tf.tensor1d([1], 'int32'), tf.tensor1d([1], 'int32')])[0]!,
  rawClip: ({ x }) => rawOp('ClipByValue', [x, tf.scalar(-0.5), tf.scalar(0.5)])[0]!,
};

/** Ops of XLA's own: no eager form to compare with, values computed by hand. */
const xlaOnly: Record<string, { run: Case; expected: (t: Inputs) => tf.Tensor[] }> = {
  XlaDotV2: {
    run: ({ x, m }) =>
      rawOp('XlaDotV2', [x, tf.transpose(m)], {
        dimension_numbers: attr.string(dotNumbers),
        precision_config: attr.string(''),
        preferred_element_type: dtypeAttr('float32'),
      }),
    expected: ({ x, m }) => [tf.matMul(x as tf.Tensor2D, m as tf.Tensor2D)],
  },
  XlaDynamicSlice: {
    run: ({ x, c }) =>
      rawOp('XlaDynamicSlice', [x, tf.concat([c, tf.tensor1d([0], 'int32')]), tf.tensor1d([1, 3], 'int32')]),
    expected: ({ x }) => [tf.slice(x, [1, 0], [1, 3])],
  },
  XlaDynamicUpdateSlice: {
    run: ({ x, c }) => rawOp('XlaDynamicUpdateSlice', [x, tf.zeros([1, 3]), tf.concat([c, tf.tensor1d([0], 'int32')])]),
    expected: ({ x }) => [tf.concat([tf.slice(x, [0, 0], [1, 3]), tf.zeros([1, 3])], 0)],
  },
  StatelessRandom: {
    run: ({ x }) => {
      const [shape, seed] = [tf.tensor1d([2, 3], 'int32'), tf.tensor1d([1, 2], 'int32')];
      const numbers = ['StatelessRandomUniform', 'StatelessRandomNormal'].map(
        (op) => rawOp(op, [shape, seed], { dtype: dtypeAttr('float32') })[0]!,
      );
      const ints = rawOp('StatelessRandomUniformInt', [shape, seed, tf.scalar(4, 'int32'), tf.scalar(5, 'int32')])[0]!;
      return [...numbers.map((u) => tf.greater(tf.abs(u), tf.add(tf.abs(x), 10))), ints];
    },
    expected: () => [tf.zeros([2, 3], 'bool'), tf.zeros([2, 3], 'bool'), tf.fill([2, 3], 4, 'int32')],
  },
  XlaOptimizationBarrier: {
    run: ({ x, v }) => rawOp('XlaOptimizationBarrier', [x, v], {}, 2),
    expected: ({ x, v }) => [x, v],
  },
  XlaReduce: {
    run: ({ i, j }) => [i, j].map((t) => castTo(sumInDtype(castTo(t, 'int16'), t.rank - 1), 'int32')),
    expected: ({ i, j }) => [i, j].map((t) => tf.sum(t, t.rank - 1)),
  },
  XlaSort: { run: ({ v }) => rawOp('XlaSort', [v]), expected: ({ v }) => [tf.reverse(tf.topk(v, 3).values)] },
  XlaKeyValueSort: {
    run: ({ v }) => rawOp('XlaKeyValueSort', [v, tf.range(0, 3, 1, 'int32')], {}, 2),
    expected: ({ v }) => [tf.reverse(tf.topk(v, 3).values), tf.reverse(tf.topk(v, 3).indices)],
  },
};

/** Cases with an op that XLA does not compile: run as a TensorFlow graph. */
const uncompiled = new Set(['gradNearest']);

function makeInputs(): Inputs {
  const seeded = (shape: number[], seed: number): tf.Tensor => tf.randomUniform(shape, -0.9, 0.9, 'float32', seed);
  return {
    x: seeded([2, 3], 1),
    y: seeded([2, 3], 2),
    v: seeded([3], 3),
    m: seeded([3, 4], 4),
    img: seeded([1, 6, 6, 2], 5),
    vol: seeded([1, 4, 4, 4, 1], 6),
    i: tf.tensor1d([3, 0, 1, 2], 'int32'),
    j: tf.tensor2d(
      [
        [0, 2],
        [1, 0],
      ],
      [2, 2],
      'int32',
    ),
    b: tf.tensor2d(
      [
        [1, 0, 1],
        [0, 1, 1],
      ],
      [2, 3],
      'bool',
    ),
    c: tf.tensor1d([1], 'int32'),
  };
}

const list = (out: tf.Tensor | tf.Tensor[]): tf.Tensor[] => (Array.isArray(out) ? out : [out]);

function expectClose(name: string, got: tf.Tensor, want: tf.Tensor): void {
  expect(got.shape, `${name}: shape`).eql(want.shape);
  expect(trueDtype(got), `${name}: dtype`).equal(trueDtype(want));
  const [a, b] = [got.dataSync(), want.dataSync()];
  for (let k = 0; k < b.length; k++) {
    if (Number.isNaN(b[k]!) && Number.isNaN(a[k]!)) continue;
    if (a[k] === b[k]) continue;
    expect(Math.abs(a[k]! - b[k]!), `${name}[${k}]: ${a[k]} against ${b[k]}`).lessThan(
      1e-5 * Math.max(1, Math.abs(b[k]!)),
    );
  }
}

describe('shape functions', () => {
  const inputs = {} as Inputs;
  const specs = Object.fromEntries(
    Object.entries(SHAPES).map(([k, shape]) => [
      k,
      { shape, dtype: 'ijc'.includes(k) ? ('int32' as const) : k === 'b' ? ('bool' as const) : ('float32' as const) },
    ]),
  );
  before(async () => {
    await useBackend('tensorflow');
    Object.assign(inputs, makeInputs());
  });
  after(() => tf.dispose(inputs));

  const used = new Set<string>();
  const symbolicInputs = (graph: FunctionGraph): Inputs =>
    Object.fromEntries(
      Object.entries(specs).map(([k, s]) => [k, makeSymbolic(graph.parameter(k, s.shape, s.dtype))]),
    ) as Inputs;

  for (const name of Object.keys(cases)) {
    it(`${name}: inferred as executed`, () => {
      tf.tidy(() => {
        const want = list(cases[name]!(inputs)).map((t) => ({ shape: t.shape, dtype: t.dtype }));
        const graph = new FunctionGraph('t');
        const got = trace(graph, () => {
          const out = list(cases[name]!(symbolicInputs(graph)));
          return out.map((t) => ({ shape: t.shape, dtype: t.dtype }));
        });
        graph.ops().forEach((op) => used.add(op));
        expect(got).eql(want);
      });
    });
  }

  it('gives the values of eager execution when compiled', async function () {
    this.timeout(180000);
    const program = new Program();
    for (const [group, xla] of [
      ['compiled', true],
      ['plain', false],
    ] as const) {
      program.define(
        group,
        specs,
        (t) => {
          const outputs: Record<string, tf.Tensor> = {};
          for (const [name, fn] of Object.entries(cases)) {
            if (uncompiled.has(name) === xla) continue;
            list(fn(t as unknown as Inputs)).forEach((out, k) => (outputs[`${name}_${k}`] = out));
          }
          outputs['done'] = tf.scalar(1);
          return { outputs };
        },
        { xla },
      );
    }
    program.define('xlaOnly', specs, (t) => {
      const outputs: Record<string, tf.Tensor> = {};
      for (const [name, { run }] of Object.entries(xlaOnly))
        list(run(t as unknown as Inputs)).forEach((out, k) => (outputs[`${name}_${k}`] = out));
      return { outputs };
    });
    await program.compile();
    tf.tidy(() => {
      for (const group of ['compiled', 'plain']) {
        const got = program.runSync(group, inputs);
        for (const [name, fn] of Object.entries(cases)) {
          list(fn(inputs)).forEach((want, k) => {
            const out = got[`${name}_${k}`];
            if (out) expectClose(`${name}_${k}`, out, want);
          });
        }
      }
      const got = program.runSync('xlaOnly', inputs);
      for (const [name, { expected }] of Object.entries(xlaOnly)) {
        expected(inputs).forEach((want, k) => expectClose(`${name}_${k}`, got[`${name}_${k}`]!, want));
      }
    });
    program.dispose();
  });

  it('covers every op of the table', () => {
    const known = new Set(used);
    for (const { run } of Object.values(xlaOnly)) {
      const graph = new FunctionGraph('t');
      trace(graph, () => run(symbolicInputs(graph)));
      graph.ops().forEach((op) => known.add(op));
    }
    known.add('XlaCustomCallV2'); // for GPUs alone; its one use is tested in test/kernels
    known.add('CollectiveReduceV2'); // needs several devices: program/replicated.test.ts
    known.add('XlaCallModule'); // needs a kernel, and is tested with those: kernels/host/call.test.ts, call_module.test.ts
    expect(tracedOps().filter((op) => !known.has(op))).eql([]);
  });

  it('refuses shapes that do not fit and ops it does not know, by name', () => {
    const program = new Program();
    const define = (fn: (t: Inputs) => tf.Tensor): void =>
      program.define('f', specs, (t) => ({ outputs: { y: fn(t as unknown as Inputs) } }));
    expect(() => define(({ x }) => rawOp('MatMul', [x, x])[0]!)).throw(
      TracingError,
      'MatMul(float32[2,3], float32[2,3]): inner dimensions 3 and 2',
    );
    expect(() => define(({ x }) => rawOp('Where', [x])[0]!)).throw(TracingError, "'Where'");
    expect(() => define(({ x }) => rawOp('Betainc', [x, x, x])[0]!)).throw(TracingError, "'Betainc'");
    expect(() => define(({ x, c }) => rawOp('Reshape', [x, c])[0]!)).throw(TracingError, 'depends on data');
    expect(() => define(({ x }) => tf.add(castTo(x, 'bfloat16'), x))).throw(TracingError, 'bfloat16[2,3]');
    program.dispose();
  });
});
