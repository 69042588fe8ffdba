/**
 * Tensors of element types that tfjs does not know (bfloat16, uint8, …), held on the native side only. tfjs' own kernels
 * cannot take them; executeRaw() runs any TensorFlow op on them.
 */
import type * as tf from '@tensorflow/tfjs';
import { ArgumentError, DisposedError } from '../base/errors.js';
import { DT, nativeBinding, tensorFlowBackend, type DTName, type OpAttr, type TensorMetadata } from './binding.js';

/** Bytes per element of the types that bytes can be uploaded as. */
const BYTES: Partial<Record<DTName, number>> = { float32: 4, int32: 4, uint8: 1, bool: 1, bfloat16: 2, float16: 2 };

/** A native tensor that is ours to free: tf.tidy() and tf.memory() do not see it. */
export class RawTensor {
  private constructor(
    private handle: number | null,
    readonly shape: readonly number[],
    /** A value of DT. */
    readonly dtype: number,
  ) {}

  /** Takes over a tensor that the binding returned. */
  static adopt({ id, shape, dtype }: TensorMetadata): RawTensor {
    return new RawTensor(id, shape, dtype);
  }

  /**
   * Uploads little-endian elements. On a CPU the bytes may be used in place: do not change them afterwards.
   *
   * @param bytes exactly the elements of `shape`
   * @throws ArgumentError when the number of bytes does not fit, or bytes of this type cannot be uploaded
   */
  static fromBytes(bytes: Uint8Array, shape: readonly number[], dtype: DTName): RawTensor {
    const width = BYTES[dtype];
    if (!width) throw new ArgumentError(`A tensor of ${dtype} cannot be made from bytes.`, { dtype });
    const size = shape.reduce((product, n) => product * n, 1);
    if (bytes.byteLength !== size * width) {
      throw new ArgumentError(
        `Got ${bytes.byteLength} bytes for ${dtype} [${shape.join(', ')}], expected ${size * width}.`,
        { dtype, shape, bytes: bytes.byteLength },
      );
    }
    const binding = nativeBinding();
    if (width === 2) return fromHalves(bytes, shape, DT[dtype]);
    const values = width === 1 ? new Uint8Array(bytes) : words(bytes, dtype === 'float32');
    return new RawTensor(binding.createTensor([...shape], DT[dtype], values), shape, DT[dtype]);
  }

  /** The binding's number for this tensor. */
  get id(): number {
    if (this.handle === null) throw new DisposedError('This RawTensor was disposed.');
    return this.handle;
  }

  get isDisposed(): boolean {
    return this.handle === null;
  }

  /** A new raw tensor of another element type (TensorFlow's Cast). */
  cast(dtype: DTName): RawTensor {
    return executeRaw('Cast', [typeAttr('SrcT', this.dtype), typeAttr('DstT', DT[dtype])], [this])[0]!;
  }

  /** A new tfjs tensor with these values: float types as float32, the others as int32. */
  toTensor(): tf.Tensor {
    const float = ([DT.float32, DT.bfloat16, DT.float16, DT.float64] as number[]).includes(this.dtype);
    const [output] = nativeBinding().executeOp(
      'Cast',
      [typeAttr('SrcT', this.dtype), typeAttr('DstT', float ? DT.float32 : DT.int32)],
      [this.id],
      1,
    );
    return tensorFlowBackend().createOutputTensor(output!);
  }

  /** Frees the native tensor. A second call does nothing. */
  dispose(): void {
    if (this.handle === null) return;
    nativeBinding().deleteTensor(this.handle);
    this.handle = null;
  }
}

/** An attribute whose value is an element type, a value of DT. */
export function typeAttr(name: string, value: number): OpAttr {
  return { name, type: nativeBinding().TF_ATTR_TYPE, value };
}

/**
 * Runs one TensorFlow op, by its name in the op registry. The inputs stay the caller's, the outputs become so.
 *
 * @example
 * const [sum] = executeRaw('AddV2', [typeAttr('T', DT.bfloat16)], [a, b]);
 */
export function executeRaw(
  op: string,
  attrs: OpAttr[],
  inputs: readonly (RawTensor | tf.Tensor)[],
  outputs = 1,
): RawTensor[] {
  const backend = tensorFlowBackend();
  const ids = inputs.map((input) => (input instanceof RawTensor ? input.id : backend.getInputTensorIds([input])[0]!));
  return backend.binding.executeOp(op, attrs, ids, outputs).map((output) => RawTensor.adopt(output));
}

/** The bytes as 4-byte words, in place when they are aligned. */
function words(bytes: Uint8Array, float = false): Int32Array | Float32Array {
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes);
  return float
    ? new Float32Array(buffer, byteOffset, byteLength / 4)
    : new Int32Array(buffer, byteOffset, byteLength / 4);
}

/**
 * 2-byte elements cannot be uploaded as such: they go as int32 pairs, which stay in host memory, and are taken apart
 * there by a Bitcast. Of an odd number of elements the last pair is half empty, and cut off.
 */
function fromHalves(bytes: Uint8Array, shape: readonly number[], dtype: number): RawTensor {
  const binding = nativeBinding();
  const size = bytes.byteLength / 2;
  let padded = bytes;
  if (size % 2 === 1) {
    padded = new Uint8Array(bytes.byteLength + 2);
    padded.set(bytes);
  }
  const made: number[] = [];
  const run = (op: string, attrs: OpAttr[], inputs: number[]) => {
    const output = binding.executeOp(op, attrs, inputs, 1)[0]!;
    made.push(output.id);
    return output.id;
  };
  const vector = (values: number[]) => {
    made.push(binding.createTensor([values.length], DT.int32, Int32Array.from(values)));
    return made.at(-1)!;
  };
  try {
    made.push(binding.createTensor([padded.byteLength / 4], DT.int32, words(padded)));
    let id = run('Bitcast', [typeAttr('T', DT.int32), typeAttr('type', dtype)], [made[0]!]);
    id = run('Reshape', [typeAttr('T', dtype), typeAttr('Tshape', DT.int32)], [id, vector([-1])]);
    if (padded !== bytes) {
      const attrs = [typeAttr('T', dtype), typeAttr('Index', DT.int32)];
      id = run('Slice', attrs, [id, vector([0]), vector([size])]);
    }
    id = run('Reshape', [typeAttr('T', dtype), typeAttr('Tshape', DT.int32)], [id, vector([...shape])]);
    made.splice(made.indexOf(id), 1);
    return RawTensor.adopt({ id, shape: [...shape], dtype });
  } finally {
    for (const id of made) binding.deleteTensor(id);
  }
}
