/** Any TensorFlow op by name, and the element type that a tensor really has. */
import type * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../../base/errors.js';
import {
  findNodeBackend,
  nativeDtype,
  nativeId,
  nodeBackend,
  wrapNative,
  type NativeAttr,
} from '../../runtime/binding.js';
import { dtypeNumber } from '../../runtime/data_types.js';
import { isSymbolic, isTracing, record, symbolic, valueOf } from '../trace/backend.js';
import { attr, type Attr, type Attrs } from '../trace/graphdef.js';
import type { Dtype } from '../types.js';

export { attr };

/** The true element type of a tensor, symbolic or on the tensorflow backend; on other backends what its label says. */
export function trueDtype(x: tf.Tensor): Dtype {
  if (isSymbolic(x)) return valueOf(x).dtype;
  return findNodeBackend()?.tensorMap.has(x.dataId) ? nativeDtype(x) : (x.dtype as Dtype);
}

/** dtype attribute of rawOp. */
export function dtypeAttr(dtype: Dtype): Attr {
  return attr.type(dtypeNumber(dtype));
}

function nativeAttr(name: string, a: Attr): NativeAttr {
  const { binding } = nodeBackend();
  switch (a.kind) {
    case 'type':
      return { name, type: binding.TF_ATTR_TYPE, value: a.value };
    case 'int':
      return { name, type: binding.TF_ATTR_INT, value: a.value };
    case 'float':
      return { name, type: binding.TF_ATTR_FLOAT, value: a.value };
    case 'bool':
      return { name, type: binding.TF_ATTR_BOOL, value: a.value };
    case 'string':
      return { name, type: binding.TF_ATTR_STRING, value: a.value };
    case 'shape':
      return { name, type: binding.TF_ATTR_SHAPE, value: a.value };
    default:
      throw new ArgumentError(`Attribute '${name}' of kind ${a.kind} works in traced code only.`, { attribute: name });
  }
}

/**
 * Any TensorFlow op with a shape function, by name.
 * @param attrs attributes that the inputs do not determine, made with `attr`
 * @param outputs how many outputs to return, default 1
 * @throws TracingError in traced code when the op is unknown or its inputs do not fit
 * @example const [low] = rawOp('BitwiseAnd', [packed, constantOf([15], [], 'uint8')]);
 */
export function rawOp(op: string, inputs: readonly tf.Tensor[], attrs: Attrs = {}, outputs = 1): tf.Tensor[] {
  if (isTracing()) return record(op, attrs, inputs.map(valueOf)).slice(0, outputs).map(symbolic);
  const natives = Object.entries(attrs).map(([name, a]) => nativeAttr(name, a));
  return nodeBackend().binding.executeOp(op, natives, inputs.map(nativeId), outputs).map(wrapNative);
}
