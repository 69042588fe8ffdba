import { expect } from 'chai';
import { PtxWriter } from '../../../src/jit/custom_call/ptx.js';
import { InterpreterError } from '../../../src/kernels/interpret/errors.js';
import { runPtx } from '../../../src/kernels/interpret/ptx.js';

/** A kernel of one warp over one buffer of 32 floats. */
function run(write: (k: PtxWriter) => void, memory: ArrayBufferView[] = [new Float32Array(32)], warps = 1): void {
  const k = new PtxWriter(
    'test',
    memory.map(() => 'float32'),
    warps,
  );
  write(k);
  runPtx(k.kernel(1), memory);
}

describe('the interpreter of PTX', () => {
  const own = (k: PtxWriter): string => k.address(k.pointer(0), k.thread, 4);

  it('runs each thread, under its condition', () => {
    const x = Float32Array.from({ length: 32 }, (_, i) => i);
    run(
      (k) => {
        const at = own(k);
        const double = k.float('mul.f32', k.float('ld.global.f32', `[${at}]`), 2);
        k.when(k.compare('lt.u32', k.thread, 5), () => k.run('st.global.f32', `[${at}]`, double));
      },
      [x],
    );
    expect([...x.subarray(0, 7)]).to.deep.equal([0, 2, 4, 6, 8, 5, 6]);
  });

  it('shuffles, and hands on through shared memory after a barrier', () => {
    const x = new Float32Array(64);
    run(
      (k) => {
        const array = k.array(4 * 64);
        const value = k.float('cvt.rn.f32.s32', k.thread);
        k.run('st.shared.f32', `[${k.place(array, k.thread, 4)}]`, value);
        k.barrier();
        const other = k.float('ld.shared.f32', `[${k.place(array, k.int('sub.s32', 63, k.thread), 4)}]`);
        k.run('st.global.f32', `[${own(k)}]`, k.across('max.f32', other));
      },
      [x],
      2,
    );
    expect([x[0], x[31], x[32], x[63]]).to.deep.equal([63, 63, 31, 31]);
  });

  const wrong: [string, RegExp, (k: PtxWriter) => void][] = [
    ['a read beyond a buffer', /at 128 of 128 bytes/, (k) => k.float('ld.global.f32', `[${own(k)}+4]`)],
    ['a read off its alignment', /not aligned/, (k) => k.run('ld.global.v4.f32', '{f0, f1, f2, f3}', `[${own(k)}]`)],
    [
      'a read by the path for constants of what the kernel wrote',
      /the kernel itself has written/,
      (k) => {
        k.run('st.global.f32', `[${own(k)}]`, '0f00000000');
        k.float('ld.global.nc.f32', `[${own(k)}]`);
      },
    ],
    [
      'a branch that parts a warp',
      /parts the threads of a warp/,
      (k) => k.unless(k.compare('lt.u32', k.thread, 5), () => k.int('mov.u32', 0)),
    ],
    [
      'a condition that nobody wrote',
      /a condition that nobody wrote/,
      (k) => k.when(k.register('p'), () => k.int('mov.u32', 0)),
    ],
    ['an instruction that it does not know', /unknown instruction sin.approx.f32/, (k) => k.float('sin.approx.f32', 1)],
  ];
  for (const [name, message, write] of wrong)
    it(`refuses ${name}`, () => {
      expect(() => run(write))
        .to.throw(InterpreterError, message)
        .with.nested.property('data.language', 'ptx');
    });

  it('refuses a barrier that not all warps reach', () => {
    const write = (k: PtxWriter): void =>
      k.unless(k.compare('eq.u32', k.warp, 1), () => {
        k.barrier();
        k.int('mov.u32', 0);
      });
    expect(() => run(write, [new Float32Array(64)], 2)).to.throw(InterpreterError, 'warps wait at different places');
  });

  it('refuses a kernel without assembly', () => {
    expect(() => runPtx({ text: 'module {}', grid: 1, warps: 1 }, [])).to.throw(
      InterpreterError,
      'no block of assembly',
    );
  });
});
