import { expect } from 'chai';
import { recurrenceReference } from '../../../src/kernels/chunk_recurrence/reference.js';
import { recurrenceFits, type RecurrenceSpec } from '../../../src/kernels/chunk_recurrence/spec.js';
import { recurrenceKernel } from '../../../src/kernels/chunk_recurrence/triton.js';
import { runTtir } from '../../../src/kernels/interpret/ttir.js';

describe('linear recurrence on a GPU', () => {
  const numbers = (size: number, seed: number): Float32Array =>
    Float32Array.from({ length: size }, (_, i) => Math.sin(1 + i * 1.7 + seed));
  const small: RecurrenceSpec = { b: 2, c: 5, h: 3, size: 128, initial: false, reverse: false };
  const cases: [string, Partial<RecurrenceSpec>][] = [
    ['from zeros', {}],
    ['from a state', { initial: true }],
    ['from the end', { reverse: true }],
    ['more steps than are read at once, several programs a state', { c: 35, size: 1024, h: 1, initial: true }],
    ['one step', { c: 1, initial: true }],
    ['in bfloat16', { initial: true, given: 'bfloat16', result: 'bfloat16' }],
  ];
  for (const [name, change] of cases) {
    it(`is the same as in plain loops: ${name}`, () => {
      const spec = { ...small, ...change };
      const { b, c, h, size } = spec;
      const x = numbers(b * c * h * size, 0);
      const decay = numbers(b * c * h, 2).map((v) => Math.abs(v));
      const initial = numbers(b * h * size, 3);
      const y = new Float32Array(x.length).fill(NaN);
      runTtir(recurrenceKernel(spec), [x, decay, ...(spec.initial ? [initial] : []), y]);
      recurrenceReference(spec, x, decay, initial).forEach((state, i) => {
        const rounding = spec.result === 'bfloat16' ? Math.abs(state) * 2 ** -8 : 0;
        expect(y[i], `state ${i}`).to.be.closeTo(state, 1e-5 + rounding);
      });
    });
  }

  it('says where there is no kernel', () => {
    expect(recurrenceFits(small)).to.equal(true);
    expect(recurrenceFits({ ...small, size: 96 })).to.equal(false);
    expect(recurrenceFits({ ...small, c: 65 })).to.equal(false);
  });
});
