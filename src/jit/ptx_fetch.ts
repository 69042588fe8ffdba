/** Bringing memory into the cache that all multiprocessors share, without waiting for it. */
import type { PtxWriter } from './ptx.js';

/** How: one instruction a warp asks for 32 pieces of so many bytes, or one thread for all. */
export type Fetch = 32 | 128 | 'bulk';

/** @param address of a span of bytes of a warp, the same in all of its lanes */
export function fetchSpan(k: PtxWriter, address: string, bytes: number, how: Fetch): void {
  if (how === 'bulk') {
    k.when(k.compare('eq.u32', k.lane, 0), () =>
      k.run('cp.async.bulk.prefetch.L2.global', `[${address}]`, Math.max(16, Math.floor(bytes / 16) * 16)),
    );
    return;
  }
  const at = k.address(address, k.lane, how);
  for (let from = 0; from < bytes; from += 32 * how) {
    const lanes = Math.ceil((bytes - from) / how);
    const there = lanes < 32 ? k.compare('lt.u32', k.lane, lanes) : null;
    k.when(there, () => k.run('prefetch.global.L2', `[${at}+${from}]`));
  }
}

/** A span that all warps of all blocks share out: each a piece of it, where there is one. @param warp number of the warp among all */
export function fetchShared(k: PtxWriter, base: string, bytes: number, warp: string): void {
  const piece = k.int('mad.lo.u32', warp, 32, k.lane);
  const there = k.compare('lt.u32', piece, Math.ceil(bytes / 32));
  const at = k.address(base, piece, 32);
  k.when(there, () => k.run('prefetch.global.L2', `[${at}]`));
}
