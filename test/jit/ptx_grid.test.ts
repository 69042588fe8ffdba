import { expect } from 'chai';
import { PtxWriter } from '../../src/jit/ptx.js';
import { COUNTER_WORDS, GridBarriers } from '../../src/jit/ptx_grid.js';
import { runPtx } from '../support/ptx.js';

/**
 * Each thread writes its number, and after a barrier adds what the same thread of the next block wrote: twice, as there are two barriers.
 * @param read how that is read @param meet whether the blocks wait for each other
 */
function neighbours(blocks: number, read = 'ld.global.f32', meet = true) {
  const k = new PtxWriter('neighbours', ['int32', 'float32', 'float32', 'float32'], 2);
  const barriers = new GridBarriers(k, k.pointer(0), blocks);
  const after = k.int('add.u32', k.block, 1);
  const next = k.int('selp.u32', 0, after, k.compare('eq.u32', after, blocks));
  const at = (buffer: number, block: string): string =>
    `[${k.address(k.pointer(buffer), k.int('mad.lo.u32', block, 64, k.thread), 4)}]`;
  let own = k.float('cvt.rn.f32.s32', k.int('mad.lo.u32', k.block, 64, k.thread));
  for (const stage of [1, 2]) {
    k.run('st.global.f32', at(stage, k.block), own);
    if (meet) barriers.wait();
    own = k.float('add.f32', own, k.set('f', read, at(stage, next)));
  }
  k.run('st.global.f32', at(3, k.block), own);
  return k.kernel(blocks);
}

const wanted = (blocks: number): number[] =>
  Array.from({ length: 64 * blocks }, (_, i) =>
    [0, 1, 1, 2].map((far) => (i + 64 * far) % (64 * blocks)).reduce((a, b) => a + b),
  );

describe('barriers of all blocks', () => {
  const run = (blocks: number, counters: Int32Array, backwards = false, ...how: [string?, boolean?]): number[] => {
    const memory = [1, 2, 3].map(() => new Float32Array(64 * blocks).fill(NaN));
    runPtx(neighbours(blocks, ...how), [counters, ...memory], backwards);
    return [...memory[2]!];
  };

  it('wait for all, in any order, and leave counters ready for the next kernel', () => {
    for (const blocks of [1, 2, 5]) {
      const counters = new Int32Array(COUNTER_WORDS);
      for (const backwards of [false, true, false]) {
        expect(run(blocks, counters, backwards)).to.deep.equal(wanted(blocks));
        expect(counters[0]).to.equal(0);
      }
    }
  });

  it('are needed: without them blocks read what is not there yet', () => {
    const early = run(3, new Int32Array(COUNTER_WORDS), false, 'ld.global.f32', false);
    expect(early.filter(Number.isNaN)).to.not.deep.equal([]);
  });

  it('do not make up for reads that may be older', () => {
    const old = (): number[] => run(3, new Int32Array(COUNTER_WORDS), false, 'ld.global.nc.f32');
    expect(old).to.throw('what the kernel itself has written');
  });

  it('that are never met are found, not waited for', () => {
    const late = new Int32Array(COUNTER_WORDS);
    late[0] = -1;
    expect(() => run(3, late)).to.throw('wait for each other forever');
  });
});
