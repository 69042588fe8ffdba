/** Parts of arrays along an axis. */
import { expect } from 'chai';
import { type ArrayPart, evenPart, partShape, putPart, takePart } from '../../src/base/array_parts.js';

const SHAPE = [2, 5, 3];
const whole = Float32Array.from({ length: 30 }, (_, i) => i + 1);
const bytes = new Uint8Array(whole.buffer);
const taken = (part: ArrayPart, shape = SHAPE): number[] => {
  const cut = takePart(bytes, shape, 4, part);
  return [...new Float32Array(cut.slice().buffer)];
};

describe('array parts', () => {
  it('are what a loop over all places takes', () => {
    const ranges = [[1, 2], [3, 5]] as const; // prettier-ignore
    for (const axis of [0, 1, 2]) {
      const of = axis === 0 ? ([[1, 2]] as const) : axis === 1 ? ranges : ([[0, 1], [2, 3]] as const); // prettier-ignore
      const size = of.reduce((sum, [a, b]) => sum + b - a, 0);
      const within = (i: number): boolean => of.some(([a, b]) => i >= a && i < b);
      const want = [...whole].filter((_, i) => within([Math.floor(i / 15), Math.floor(i / 3) % 5, i % 3][axis]!));
      const part = { axis, ranges: of, size };
      expect(taken(part), `axis ${axis}`).to.deep.equal(want);
      expect(partShape(SHAPE, part).reduce((a, b) => a * b)).to.equal(want.length);
    }
  });

  it('are views where they lie together, and filled up with zeros where they end', () => {
    const rows = { axis: 0, ranges: [[2, 4]] as const, size: 2 };
    expect(takePart(bytes, [6, 5], 4, rows).buffer).to.equal(bytes.buffer);
    expect(taken(rows, [6, 5])).to.deep.equal([...whole.subarray(10, 20)]);
    // 5 over 3 devices: 2, 2 and 1
    expect([0, 1, 2].map((k) => evenPart(0, 5, 3, k))).to.deep.equal([
      { axis: 0, ranges: [[0, 2]], size: 2 },
      { axis: 0, ranges: [[2, 4]], size: 2 },
      { axis: 0, ranges: [[4, 5]], size: 2 },
    ]);
    expect(taken(evenPart(0, 5, 3, 2), [5, 6])).to.deep.equal([...whole.subarray(24, 30), 0, 0, 0, 0, 0, 0]);
    // more devices than places
    expect(taken(evenPart(0, 2, 4, 3), [2, 15])).to.deep.equal(new Array(15).fill(0));
    expect(taken(evenPart(1, 5, 2, 1), [6, 5]).slice(0, 6)).to.deep.equal([4, 5, 0, 9, 10, 0]);
  });

  it('go back where they were', () => {
    const parts: ArrayPart[] = [
      { axis: 1, ranges: [[0, 1], [3, 4]], size: 2 },
      { axis: 1, ranges: [[1, 3], [4, 5]], size: 3 },
    ]; // prettier-ignore
    const back = new Float32Array(30);
    for (const part of parts) putPart(Float32Array.from(taken(part)), back, SHAPE, part);
    expect(back).to.deep.equal(whole);
  });
});
