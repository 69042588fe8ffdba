/**
 * A barrier of all blocks of a kernel in PTX. All of them must run at a time, or those that do wait forever for the rest: so a kernel with
 * barriers has at most one block for each multiprocessor, of a size that fits.
 */
import type { PtxWriter } from './ptx.js';

/** Words of the counters that the barriers of a kernel take; each counter lies in a line of memory of its own. */
export const COUNTER_WORDS = 64;
const LINE = 128;

/** How often a waiting block asks, at most, some seconds: then the kernel fails, and does not hang. */
const PATIENCE = 2 ** 24;

/**
 * The two barriers of a kernel. The counter of the first is 0 before and after the kernel; that of the second may hold anything before,
 * so that it need not be put back while others still read it.
 */
export class GridBarriers {
  private met = 0;

  /** @param counters address of COUNTER_WORDS words, which kernels one after another share @param blocks of the kernel */
  constructor(
    private readonly k: PtxWriter,
    private readonly counters: string,
    private readonly blocks: number,
  ) {}

  /** Waits for all threads of all blocks, and for what they wrote to memory, which is then read by any load but `ld.global.nc`. */
  wait(): void {
    const { k, blocks } = this;
    const counter = `[${this.counters}+${LINE * this.met}]`;
    const other = `[${this.counters}+${LINE * (1 - this.met)}]`;
    if (this.met > 1) throw new Error('GridBarriers: a third barrier');
    const lead = (): string => k.compare('eq.u32', k.thread, 0);
    const first = k.set('p', 'and.pred', lead(), k.compare('eq.u32', k.block, 0));
    const zero = k.int('mov.u32', 0);
    // of the second barrier nobody knows yet
    if (this.met === 0) k.when(first, () => k.run('st.global.b32', other, zero));
    k.barrier();
    k.unless(k.compare('ge.u32', k.warp, 1), () => {
      k.when(lead(), () => k.run('red.release.gpu.global.add.u32', counter, 1));
      const asked = k.int('mov.u32', 0);
      const arrived = k.register('r');
      k.repeat(() => {
        k.run('ld.acquire.gpu.global.b32', arrived, counter);
        k.run('add.u32', asked, asked, 1);
        k.when(k.compare('gt.u32', asked, PATIENCE), () => k.run('trap'));
        // lanes may have read at different times
        return k.compare('lt.u32', k.int('shfl.sync.idx.b32', arrived, 0, 31, -1), blocks);
      });
    });
    k.barrier();
    // all have arrived here, so none asks for the first counter any more
    if (this.met === 1) k.when(first, () => k.run('st.global.b32', other, zero));
    this.met++;
  }
}
