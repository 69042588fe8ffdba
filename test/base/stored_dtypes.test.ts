import { expect } from 'chai';
import {
  bfloat16Bits,
  decodeFloat32,
  decodeInt32,
  elementCount,
  encodeFloat32,
  toBfloat16,
} from '../../src/base/stored_dtypes.js';
import { CheckpointError } from '../../src/base/errors.js';

/** Value of a float16 bit pattern by the definition of IEEE 754 binary16. */
function half(bits: number): number {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The representable value nearest to x, ties to the one with an even bit pattern; by search over all of them. */
function nearest(x: number, table: { value: number; bits: number }[]): number {
  let best = table[0]!;
  for (const entry of table) {
    const d = Math.abs(entry.value - x) - Math.abs(best.value - x);
    if (d < 0 || (d === 0 && (entry.bits & 1) === 0)) best = entry;
  }
  return best.bits;
}

const all = (): Uint16Array => Uint16Array.from({ length: 65536 }, (_, i) => i);

describe('stored dtypes', () => {
  it('decodes every float16 pattern to its value', () => {
    const out = decodeFloat32(new Uint8Array(all().buffer), 'F16');
    for (let i = 0; i < 65536; i++) {
      const want = half(i);
      if (!Object.is(out[i], Math.fround(want))) expect(out[i], `pattern ${i}`).to.deep.equal(want);
    }
  });

  it('decodes bfloat16 as the upper half of a float32', () => {
    const out = decodeFloat32(new Uint8Array(Uint16Array.of(0x3f80, 0xc000, 0x7f80, 0x0001, 0x8000).buffer), 'BF16');
    expect([...out]).to.deep.equal([1, -2, Infinity, Math.fround(2 ** -133), -0]);
  });

  for (const dtype of ['F16', 'BF16'] as const) {
    it(`${dtype}: every pattern survives a round trip`, () => {
      const bytes = new Uint8Array(all().buffer);
      const again = new Uint16Array(encodeFloat32(decodeFloat32(bytes, dtype), dtype).buffer);
      const infinite = dtype === 'F16' ? 0x7c00 : 0x7f80;
      for (let i = 0; i < 65536; i++) {
        if ((i & 0x7fff) > infinite) expect(again[i]! & 0x7fff, `NaN ${i}`).to.be.greaterThan(infinite);
        else if (again[i] !== i) expect(again[i], `pattern ${i}`).to.equal(i);
      }
    });
  }

  it('rounds to the nearest float16, ties to even, and overflows to infinity', () => {
    const table = [...all()]
      .filter((bits) => (bits & 0x7fff) < 0x7c00 && bits < 0x8000)
      .map((bits) => ({ value: half(bits), bits }));
    let seed = 1;
    const random = (): number => (seed = (seed * 48271) % 2147483647) / 2147483647;
    const values = Float32Array.from({ length: 200 }, () => random() * 2 ** Math.floor(random() * 40 - 26));
    for (let i = 0; i < 40; i++) {
      const at = Math.floor(random() * 31000);
      values[i] = (half(at) + half(at + 1)) / 2;
    }
    const got = new Uint16Array(encodeFloat32(values, 'F16').buffer);
    for (const [i, x] of values.entries()) if (x < 65504) expect(got[i], `${x}`).to.equal(nearest(x, table));
    const edge = Float32Array.of(65519.996, 65520, -1e30, 2 ** -25, 1.001 * 2 ** -25);
    expect([...new Uint16Array(encodeFloat32(edge, 'F16').buffer)]).to.deep.equal([0x7bff, 0x7c00, 0xfc00, 0, 1]);
  });

  it('rounds to the nearest bfloat16, ties to even', () => {
    const bits = Uint32Array.of(0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x7f7fffff, 0xff7fffff);
    const got = new Uint16Array(encodeFloat32(new Float32Array(bits.buffer), 'BF16').buffer);
    expect([...got]).to.deep.equal([0x3f80, 0x3f82, 0x3f81, 0x3f80, 0x7f80, 0xff80]);
    expect([...bits].map(bfloat16Bits)).to.deep.equal([...got]);
    const numbers = [...new Float32Array(bits.buffer)].map(toBfloat16);
    expect(numbers).to.deep.equal([...decodeFloat32(new Uint8Array(got.buffer), 'BF16')]);
    expect(toBfloat16(NaN)).to.deep.equal(NaN);
  });

  it('reads bytes that are not aligned', () => {
    const bytes = new Uint8Array(9);
    bytes.set(new Uint8Array(Float32Array.of(1.5, -3).buffer), 1);
    expect([...decodeFloat32(bytes.subarray(1), 'F32')]).to.deep.equal([1.5, -3]);
  });

  it('refuses integers where reals are asked for, and 64-bit integers that do not fit', () => {
    expect(() => decodeFloat32(new Uint8Array(8), 'I32')).to.throw(CheckpointError, /I32/);
    expect([...decodeInt32(new Uint8Array(BigInt64Array.of(-5n, 7n).buffer), 'I64')]).to.deep.equal([-5, 7]);
    const wide = new Uint8Array(BigInt64Array.of(1n, 2n ** 40n).buffer);
    expect(() => decodeInt32(wide, 'I64')).to.throw(CheckpointError, /element 1/);
  });

  it('counts elements without overflow', () => {
    expect(elementCount([])).to.equal(1);
    expect(elementCount([3, 0, 5])).to.equal(0);
    expect(elementCount([2 ** 40, 2 ** 40])).to.equal(null);
    expect(elementCount([2 ** 40, 2 ** 40, 0])).to.equal(null);
    for (const bad of [[-1], [1.5], ['3'], [NaN]]) expect(elementCount(bad)).to.equal(null);
  });
});
