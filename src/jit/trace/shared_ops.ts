/**
 * Ops that are slow to compile. The bridge from TensorFlow to XLA runs an MLIR pipeline for every instance of some ops (a
 * profile of TensorFlow 2.21 shows it in MlirXlaOpKernel), and a large function has hundreds of them. In a function of their own that must
 * not be inlined they are converted once per shape, and XLA inlines the result. The first call then
 * takes about a quarter less CPU time (docs/decisions/007_programs.md).
 */
import { attr, typeOf, type Attrs, type FunctionText } from './graphdef.js';

const COSTLY = new Set(
  `Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Elu EluGrad Erf Exp Expm1 Floor IsFinite IsInf IsNan LeakyRelu Log Log1p LogSoftmax Relu Relu6
   Rint Round Rsqrt Select Selu Sigmoid Sign Sin Sinh Softmax Softplus Sqrt Tan Tanh`.split(/\s+/),
);

/** A call of a function that holds one op. */
export interface SharedOp {
  op: 'PartitionedCall';
  attrs: Attrs;
  callee: FunctionText;
}

/**
 * The function to call in place of an op, or null when the op is cheap.
 * @param inputs, outputs DataType numbers
 * @param outputRef output of the op, `name:index`
 */
export function sharedOp(
  op: string,
  attrs: Attrs,
  inputs: readonly number[],
  output: number,
  outputRef: string,
): SharedOp | null {
  const plain = Object.values(attrs).every((a) => a.kind === 'type');
  if (!COSTLY.has(op) || !plain) return null;
  const name = `shared_${op}_${typeOf(inputs.at(-1)!)}`;
  const node = { name: 'op', op, inputs: inputs.map((_, i) => `x${i}`), attrs };
  const callee: FunctionText = {
    name,
    inputs: inputs.map((dtype, i) => [`x${i}`, dtype] as const),
    outputs: [['y', output]],
    nodes: [node],
    returns: { y: `op:${outputRef}` },
    effects: [],
    attrs: { _noinline: attr.bool(true) },
  };
  const attrsOfCall: Attrs = {
    Tin: attr.types(inputs),
    Tout: attr.types([output]),
    f: attr.func(name),
    config: attr.string(''),
    config_proto: attr.string(''),
    executor_type: attr.string(''),
  };
  return { op: 'PartitionedCall', attrs: attrsOfCall, callee };
}
