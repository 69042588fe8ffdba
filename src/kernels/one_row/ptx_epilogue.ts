/** What follows a product of one row in PTX: one thread a row of the matrix. */
import type { OneRowBlock } from './ptx_block.js';

/** Sums of rows, what is added to them, and what follows: one thread a row. */
export class OneRowEpilogue {
  private readonly sums: string;
  private readonly ready: string | null = null;
  private readonly within: string;
  private readonly place: string;

  constructor(private readonly w: OneRowBlock) {
    const { k, spec, tiling } = w;
    this.sums = k.array(4 * tiling.splitK * w.rows);
    if (spec.epilogue) this.ready = k.array(8 * w.rows); // what is known, and the factor of the row's product or A_log
    this.within = k.compare('lt.u32', k.thread, w.count);
    this.place = k.int('add.u32', w.base, k.thread);
  }

  /** Where a warp puts the sum of a row of the block. */
  sum(row: string): string {
    const { k, tiling, split } = this.w;
    return k.place(this.sums, k.int('mad.lo.u32', row, tiling.splitK, split), 4);
  }

  /** The channel of a row after an input projection, and whether it is one of the convolution or a step size. */
  private channel(row: string, within: string): { channel: string; inside: string; step: string } {
    const { k, spec } = this.w;
    const { first, channels } = spec.epilogue!;
    const channel = k.int('sub.s32', row, first);
    const both = (a: string): string => k.set('p', 'and.pred', a, within);
    const begun = both(k.compare('ge.s32', channel, 0));
    const small = k.compare('lt.s32', channel, channels);
    const inside = k.set('p', 'and.pred', begun, small);
    const step = both(k.compare('ge.s32', channel, channels));
    return { channel, inside, step };
  }

  /** What needs no product, on its way before there is any: of a channel the convolution's older taps, of a step size its bias. */
  prepare(): void {
    const { k, spec } = this.w;
    const { epilogue: after } = spec;
    if (!after) return;
    const { channel, inside, step } = this.channel(this.place, this.within);
    const known = k.float('mov.f32', 0);
    const factor = k.float('mov.f32', 0);
    const tapAt = k.set('d', 'add.s64', this.w.pointer('taps'), k.set('d', 'mul.wide.s32', channel, 4 * after.taps));
    const contextAt = k.set('d', 'mul.wide.s32', channel, 4);
    const start = k.int('ld.global.nc.b32', `[${this.w.pointer('place')}]`);
    const context = k.set('d', 'add.s64', k.address(this.w.pointer('context'), start, 4), contextAt);
    for (let i = 0; i < after.taps; i++) {
      const [tap, old] = [k.register('f'), k.register('f')];
      k.when(inside, () => {
        k.run('ld.global.nc.f32', tap, `[${tapAt}+${4 * i}]`);
        if (i === after.taps - 1) return k.run('mov.f32', factor, tap);
        k.run('ld.global.nc.f32', old, `[${context}+${4 * i * after.channels}]`);
        k.run('fma.rn.f32', known, tap, old, known);
      });
    }
    if (after.bias) {
      const at = k.set('d', 'add.s64', this.w.pointer('bias'), contextAt);
      const bias = k.register('f');
      k.when(inside, () => {
        k.run('ld.global.nc.f32', bias, `[${at}]`);
        k.run('add.f32', known, known, bias);
      });
    }
    const at = k.set('d', 'add.s64', this.w.pointer('dt_bias'), contextAt);
    const rateAt = k.set('d', 'add.s64', this.w.pointer('A_log'), contextAt);
    k.when(step, () => {
      k.run('ld.global.nc.f32', known, `[${at}+${-4 * after.channels}]`);
      k.run('ld.global.nc.f32', factor, `[${rateAt}+${-4 * after.channels}]`);
    });
    const to = k.place(this.ready!, k.thread, 8);
    k.when(this.within, () => k.run('st.shared.v2.f32', `[${to}]`, `{${known}, ${factor}}`));
  }

  /** @param scale what all products are multiplied by */
  finish(scale: string | null): void {
    const { k } = this.w;
    const row = k.int('mov.u32', k.thread);
    const end = k.int('mov.u32', this.w.count);
    k.repeat(() => {
      const within = k.compare('lt.u32', row, end);
      this.row(row, within, scale);
      k.run('add.u32', row, row, this.w.threads);
      // the same for all threads of a warp: where its first one is done
      const lead = k.int('and.b32', row, -32);
      return k.compare('lt.u32', lead, end);
    });
  }

  private row(row: string, within: string, scale: string | null): void {
    const { k, spec, tiling } = this.w;
    const { splitK } = tiling;
    const from = k.place(this.sums, row, 4 * splitK);
    const place = k.int('add.u32', this.w.base, row);
    const terms = k.registers('f', splitK);
    k.when(within, () => terms.forEach((term, i) => k.run('ld.shared.f32', term, `[${from}+${4 * i}]`)));
    let y = terms.reduce((a, b) => k.float('add.f32', a, b));
    if (scale) y = k.float('mul.f32', y, scale);
    if (spec.residual) {
      const added = k.register('f');
      const at = k.address(this.w.pointer('residual'), place, 4);
      k.when(within, () => k.run('ld.global.nc.f32', added, `[${at}]`));
      y = k.float('add.f32', y, added);
    }
    const to = k.address(this.w.pointer('y'), place, 4);
    if (spec.epilogue) this.activate(row, place, within, y, to);
    else k.when(within, () => k.run('st.global.f32', `[${to}]`, y));
  }

  /** The gate with SiLU; convolution with SiLU, or step sizes and decays, stored behind all y. */
  private activate(row: string, place: string, within: string, y: string, at: string): void {
    const { k, spec } = this.w;
    const { first, limit, heads } = spec.epilogue!;
    const { inside, step } = this.channel(place, within);
    const [known, factor] = k.registers('f', 2);
    const from = k.place(this.ready!, row, 8);
    k.when(within, () => k.run('ld.shared.v2.f32', `{${known}, ${factor}}`, `[${from}]`));
    const convolution = k.float('fma.rn.f32', y, factor!, known!);
    const gate = k.compare('lt.u32', place, first);
    const activated = k.silu(k.float('selp.f32', y, convolution, gate));
    const dt = k.stepSize(k.float('add.f32', y, known!), limit);
    const shift = 4 * (spec.out - first);
    const decay = k.decay(factor!, dt);
    const stored = k.float('selp.f32', activated, y, gate);
    k.when(within, () => k.run('st.global.f32', `[${at}]`, stored));
    k.when(inside, () => k.run('st.global.f32', `[${at}+${shift}]`, activated));
    k.when(step, () => {
      k.run('st.global.f32', `[${at}+${shift}]`, dt);
      k.run('st.global.f32', `[${at}+${shift + 4 * heads}]`, decay);
    });
  }
}
