import { expect } from 'chai';
import * as tf from '@tensorflow/tfjs';
import { DT, executeRaw, nativeBinding, RawTensor, typeAttr } from '../../src/runtime/index.js';
import { ArgumentError, DisposedError } from '../../src/base/errors.js';
import { useBackend } from '../support/backends.js';

/** bfloat16 keeps the upper half of a float32: for values that fit, the bytes are exact. */
function bfloat16Bytes(values: number[]): Uint8Array {
  const bits = new Uint32Array(Float32Array.from(values).buffer);
  return new Uint8Array(Uint16Array.from(bits, (word) => word >>> 16).buffer);
}

describe('RawTensor', () => {
  before(() => useBackend('tensorflow'));

  for (const [title, values, shape] of [
    ['an even number of elements', [1, -2.5, 0.15625, 1024, 3, -0], [2, 3]],
    ['an odd number of elements', [1, -2.5, 7], [3]],
    ['one element', [0.5], []],
  ] as const) {
    it(`keeps bfloat16, ${title}, exactly`, async () => {
      const raw = RawTensor.fromBytes(bfloat16Bytes([...values]), shape, 'bfloat16');
      expect(raw.dtype).to.equal(DT.bfloat16);
      const tensor = raw.toTensor();
      expect(tensor.shape).to.deep.equal([...shape]);
      expect(tensor.dtype).to.equal('float32');
      expect([...(await tensor.data())]).to.deep.equal([...values]);
      raw.dispose();
      tensor.dispose();
    });
  }

  it('uploads bytes at any alignment', async () => {
    const bytes = new Uint8Array(7);
    bytes.set(new Uint8Array(Int32Array.from([-123456]).buffer), 3);
    const raw = RawTensor.fromBytes(bytes.subarray(3), [1], 'int32');
    const tensor = raw.toTensor();
    expect([...(await tensor.data())]).to.deep.equal([-123456]);
    raw.dispose();
    tensor.dispose();
  });

  it('takes part in ops of its element type, and mixes with tfjs tensors', async () => {
    const weights = RawTensor.fromBytes(bfloat16Bytes([1, 2, 3, 4]), [2, 2], 'bfloat16');
    const x = tf.tensor2d([[0.5, -1]]);
    const halfX = executeRaw('Cast', [typeAttr('SrcT', DT.float32), typeAttr('DstT', DT.bfloat16)], [x])[0]!;
    const y = executeRaw('MatMul', [typeAttr('T', DT.bfloat16)], [halfX, weights])[0]!;
    const out = y.toTensor();
    expect([...(await out.data())]).to.deep.equal([0.5 - 3, 1 - 4]);
    [weights, halfX, y].forEach((raw) => raw.dispose());
    tf.dispose([x, out]);
  });

  it('keeps uint8', async () => {
    const raw = RawTensor.fromBytes(Uint8Array.from([0, 7, 255]), [3], 'uint8');
    const tensor = raw.toTensor();
    expect(tensor.dtype).to.equal('int32');
    expect([...(await tensor.data())]).to.deep.equal([0, 7, 255]);
    raw.dispose();
    tensor.dispose();
  });

  it('leaves nothing behind', () => {
    const before = nativeBinding().getNumOfTensors();
    for (const n of [1, 2, 3]) RawTensor.fromBytes(bfloat16Bytes(Array(n).fill(1)), [n], 'bfloat16').dispose();
    const raw = RawTensor.fromBytes(Uint8Array.from([1, 2]), [2], 'uint8');
    const other = raw.cast('float32');
    raw.dispose();
    raw.dispose();
    other.dispose();
    expect(nativeBinding().getNumOfTensors()).to.equal(before);
  });

  it('refuses bytes that do not fill the shape, and use after dispose', () => {
    expect(() => RawTensor.fromBytes(new Uint8Array(6), [2, 2], 'bfloat16')).to.throw(
      ArgumentError,
      /6 bytes.*expected 8/,
    );
    expect(() => RawTensor.fromBytes(new Uint8Array(8), [1], 'int64')).to.throw(ArgumentError, /int64/);
    const raw = RawTensor.fromBytes(new Uint8Array(1), [1], 'uint8');
    raw.dispose();
    expect(() => raw.toTensor()).to.throw(DisposedError);
  });
});
