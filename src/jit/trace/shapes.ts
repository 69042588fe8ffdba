/**
 * The shape function of each op that can be traced. Types need none: the signature of an op gives them (op_signatures.ts).
 */
import { dtypeBytes } from '../../runtime/data_types.js';
import { typeOf } from './graphdef.js';
import {
  argReduction,
  batchNorm,
  binary,
  broadcast,
  concat,
  convolution,
  dotShape,
  einsum,
  expandDims,
  fail,
  fromConstant,
  gather,
  int,
  ints,
  matMul,
  oneHot,
  pack,
  padShape,
  pool,
  range,
  reduction,
  reshape,
  resize,
  same,
  sameAs,
  slice,
  split,
  str,
  stridedSlice,
  topK,
  unpack,
  type ShapeFunction,
} from './shape_functions.js';

const names = (text: string): string[] => text.trim().split(/\s+/);
const table = new Map<string, ShapeFunction>();
const set = (ops: string, fn: ShapeFunction): void => names(ops).forEach((op) => table.set(op, fn));

set(
  `Abs Acos Acosh Asin Asinh Atan Atanh Cast Ceil ComplexAbs Cos Cosh Cumprod Cumsum Elu Erf Exp Expm1 FFT Floor Identity IFFT Imag
   Invert IsFinite IsInf IsNan LRN LeakyRelu Log Log1p LogSoftmax LogicalNot Neg OnesLike Real Reciprocal Relu Relu6 ReverseV2 Rint
   Roll Round Rsqrt Selu Sigmoid Sign Sin Sinh Softmax Softplus Sqrt Square Tan Tanh TensorScatterAdd TensorScatterMax
   TensorScatterUpdate XlaDynamicUpdateSlice XlaSort ZerosLike EluGrad RsqrtGrad SigmoidGrad SqrtGrad TanhGrad BiasAdd ClipByValue
   MatrixBandPart LRNGrad MaxPoolGrad MaxPool3DGrad`,
  same,
);
set(
  `Add AddV2 Atan2 BitwiseAnd BitwiseOr BitwiseXor Complex Div DivNoNan Equal FloorDiv FloorMod Greater GreaterEqual LeftShift Less LessEqual
   LogicalAnd LogicalOr Maximum Minimum Mul NotEqual Pow RealDiv RightShift SquaredDifference Sub Xlogy`,
  binary,
);
set('All Any Max Mean Min Prod Sum', reduction);
set('ArgMax ArgMin', argReduction);
set('MatMul BatchMatMulV2 BatchMatMulV3', matMul);
set('Conv2D Conv3D DepthwiseConv2dNative', convolution);
set('AvgPool AvgPool3D MaxPool MaxPool3D', pool);
set('PadV2 MirrorPad', padShape);
set(
  'Fill StatelessRandomUniform StatelessRandomNormal StatelessRandomUniformInt AvgPoolGrad AvgPool3DGrad',
  fromConstant(0, 'shape'),
);
set('Conv2DBackpropInput Conv3DBackpropInputV2 DepthwiseConv2dNativeBackpropInput', fromConstant(0, 'input shape'));
set('Conv2DBackpropFilter Conv3DBackpropFilterV2 DepthwiseConv2dNativeBackpropFilter', fromConstant(1, 'filter shape'));
set('BroadcastTo', fromConstant(1, 'shape'));
set('ScatterNd', fromConstant(2, 'shape'));
set('XlaDynamicSlice', fromConstant(2, 'size'));
set('ResizeBilinearGrad', (inputs) => [[...inputs[1]!.shape]]);
set('ResizeBilinear ResizeNearestNeighbor', resize);
set('ResizeNearestNeighborGrad', resize);
set('AddN', same);
set('CollectiveReduceV2', same);
set('XlaCustomCallV2', (_, attrs) => {
  const shapes = attrs['result_shapes'];
  return shapes?.kind === 'shapes' ? shapes.value.map((shape) => [...shape]) : [];
});
set('XlaCallModule', (_, attrs) => {
  const shapes = attrs['Sout'];
  return shapes?.kind === 'shapes' ? shapes.value.map((shape) => [...shape]) : [];
});
set('XlaOptimizationBarrier', (inputs) => inputs.map(({ shape }) => [...shape]));
set('Select', sameAs(1));
set('SelectV2', (inputs, _, op) => {
  const branches = broadcast(inputs[1]!.shape, inputs[2]!.shape, op, inputs);
  return [broadcast(inputs[0]!.shape, branches, op, inputs)];
});
set('Reshape', reshape);
set('Slice', slice);
set('StridedSlice', stridedSlice);
set('ConcatV2', concat);
set('GatherV2', gather);
set('GatherNd', ([params, indices]) => [
  [...indices!.shape.slice(0, -1), ...params!.shape.slice(indices!.shape.at(-1))],
]);
set('Einsum', einsum);
set('SplitV', split);
set('Unpack', unpack);
set('Pack', pack);
set('ExpandDims', expandDims);
set('OneHot', oneHot);
set('Range', range);
set('LinSpace', (inputs, _, op) => [ints(inputs[2]!, op, 'num')]);
set('TopKV2', topK);
set('FusedBatchNorm', batchNorm);
set('Transpose', (inputs, _, op) => [ints(inputs[1]!, op, 'perm').map((p) => inputs[0]!.shape[p]!)]);
set('Tile', (inputs, _, op) => [ints(inputs[1]!, op, 'reps').map((n, i) => n * inputs[0]!.shape[i]!)]);
set('Diag', ([x]) => [[...x!.shape, ...x!.shape]]);
set('Bincount', (inputs, _, op) => [ints(inputs[1]!, op, 'size')]);
set('UnsortedSegmentSum', (inputs, _, op) => [
  [...ints(inputs[2]!, op, 'numSegments'), ...inputs[0]!.shape.slice(inputs[1]!.shape.length)],
]);
set('XlaDotV2', (inputs, attrs) => [dotShape(inputs, str(attrs, 'dimension_numbers'))]);
set('XlaReduce', (inputs, attrs) => {
  const dims = attrs['dimensions_to_reduce'];
  const reduced = new Set(dims?.kind === 'int' && typeof dims.value !== 'number' ? dims.value : []);
  return [inputs[0]!.shape.filter((_, i) => !reduced.has(i))];
});
set('XlaKeyValueSort', (inputs) => inputs.map((v) => [...v.shape]));
set('Bitcast', (inputs, attrs, op) => {
  const [x, type] = [inputs[0]!, attrs['type']];
  const to = type?.kind === 'type' ? dtypeBytes(typeOf(type.value)) : 0;
  const from = dtypeBytes(x.dtype);
  if (from >= to) return [from === to ? [...x.shape] : [...x.shape, from / to]];
  if (x.shape.at(-1) !== to / from) fail(op, inputs, `the last axis must be ${to / from}`);
  return [x.shape.slice(0, -1)];
});
set('SpaceToBatchND', (inputs, _, op) => {
  const [block, pads] = [ints(inputs[1]!, op, 'blockShape'), ints(inputs[2]!, op, 'paddings')];
  const [batch, ...rest] = inputs[0]!.shape as [number, ...number[]];
  const spatial = rest.map((d, i) => (i < block.length ? (d + pads[2 * i]! + pads[2 * i + 1]!) / block[i]! : d));
  return [[block.reduce((n, k) => n * k, batch), ...spatial]];
});
set('BatchToSpaceND', (inputs, _, op) => {
  const [block, crops] = [ints(inputs[1]!, op, 'blockShape'), ints(inputs[2]!, op, 'crops')];
  const [batch, ...rest] = inputs[0]!.shape as [number, ...number[]];
  const spatial = rest.map((d, i) => (i < block.length ? d * block[i]! - crops[2 * i]! - crops[2 * i + 1]! : d));
  return [[block.reduce((n, k) => n / k, batch), ...spatial]];
});
set('DepthToSpace', ([x], attrs) => {
  const k = int(attrs, 'block_size');
  const [b, h, w, c] = x!.shape as [number, number, number, number];
  return [[b, h * k, w * k, c / (k * k)]];
});

/** The shape function of an op, or undefined. */
export function shapeFunction(op: string): ShapeFunction | undefined {
  return table.get(op);
}

/** All ops that can be traced. */
export function tracedOps(): string[] {
  return [...table.keys()];
}
