import { expect } from 'chai';
import { TritonWriter, type TtirValue } from '../../../src/jit/custom_call/triton.js';
import { InterpreterError } from '../../../src/kernels/interpret/errors.js';
import { runTtir } from '../../../src/kernels/interpret/ttir.js';

function run(write: (k: TritonWriter, x: TtirValue, y: TtirValue) => void, x: Float32Array, y: Float32Array): void {
  const k = new TritonWriter('test', ['float32', 'float32']);
  write(k, k.parameters[0]!, k.parameters[1]!);
  runTtir(k.kernel({ grid: 1, warps: 1 }), [x, y]);
}

describe("the interpreter of Triton's language", () => {
  it('broadcasts, sums and leaves out what a mask leaves out', () => {
    const y = new Float32Array(4).fill(NaN);
    run(
      (k, x, to) => {
        const rows = k.range(4, 0, 2);
        const all = k.load(x, k.binary('arith.addi', k.binary('arith.muli', rows, 8), k.range(8, 1, 2)));
        k.store(to, k.range(4), k.sum(all, 1), k.compare('arith.cmpi slt', k.range(4), 3));
      },
      Float32Array.from({ length: 32 }, (_, i) => i),
      y,
    );
    expect([...y]).to.deep.equal([28, 92, 156, NaN]);
  });

  it('rounds to float32, and to bfloat16 to even', () => {
    const y = new Float32Array(2);
    run(
      (k, x, to) => {
        const value = k.load(x, k.range(2));
        k.store(to, k.range(2), k.convert('arith.extf', k.convert('arith.truncf', value, 'bf16'), 'f32'));
      },
      Float32Array.of(1 + 2 ** -8, 1 + 3 * 2 ** -8),
      y,
    );
    expect([...y]).to.deep.equal([1, 1 + 2 ** -6]);
  });

  const wrong: [string, RegExp, (k: TritonWriter, x: TtirValue, y: TtirValue) => void][] = [
    ['a read beyond a buffer', /read at 4 of 4 \(parameter 0\)/, (k, x) => k.load(x, k.range(8))],
    [
      'a write beyond a buffer',
      /write at 4 of 4 \(parameter 1\)/,
      (k, _, y) => k.store(y, k.range(8), k.broadcast(k.constant(1, 'f32'), [8])),
    ],
    [
      'an operation that it does not know',
      /unknown operation math.sin/,
      (k, x) => k.unary('math.sin', k.load(x, k.range(4))),
    ],
  ];
  for (const [name, message, write] of wrong)
    it(`refuses ${name}`, () => {
      const buffers = [new Float32Array(4), new Float32Array(4)] as const;
      expect(() => run(write, ...buffers))
        .to.throw(InterpreterError, message)
        .with.nested.property('data.language', 'ttir');
    });
});
