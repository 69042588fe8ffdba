/** What follows the sums of rows in a row product in PTX: vectors that are added, and what an input projection is followed by. */
import type { RowPtx } from './row_ptx.js';
import type { Activations } from './row_spec.js';

/** In place of where an input goes: a step size of a row that stands still. */
const STILL = -2;

/** What is asked for of a channel or step size: registers, and under which conditions they mean something. */
interface Asked {
  inside: string;
  step: string;
  moves: string | null;
  context: string;
  /** Where in the context the channel's own input goes, or -1; STILL for a step size of a row that stands still; null: left to others. */
  newest: string | null;
  taps: string[];
  old: string[];
  bias: string | null;
  stepBias: string;
  rate: string;
}

/** Sums of rows, what is added to them, and what follows: one thread a row. */
export class Ending {
  private readonly sums: string;
  private readonly ready: string | null = null;
  /** Where in the context the inputs of the convolution's channels go. */
  private readonly newest: string | null = null;
  private readonly within: string;
  private readonly place: string;

  constructor(private readonly w: RowPtx) {
    const { k, spec, tiling } = w;
    this.sums = k.array(4 * tiling.parts * w.rows);
    // what is known: the vector to add; or a sum, and the factor of the row's product or A_log
    if (spec.activations || spec.residual) this.ready = k.array(8 * w.rows);
    if (spec.activations && w.moves !== 'never') this.newest = k.array(4 * w.rows);
    this.within = k.compare('lt.u32', k.thread, w.count);
    this.place = k.int('add.u32', w.base, k.thread);
  }

  /** Where a warp puts the sum of a row of the block. */
  sum(row: string): string {
    const { k, tiling, part } = this.w;
    return k.place(this.sums, k.int('mad.lo.u32', row, tiling.parts, part), 4);
  }

  /** The channel of a row after an input projection, and whether it is one of the convolution or a step size. */
  private channel(row: string, within: string): { channel: string; inside: string; step: string } {
    const { k, spec } = this.w;
    const { first, channels } = spec.activations!;
    const channel = k.int('sub.s32', row, first);
    const both = (a: string): string => k.set('p', 'and.pred', a, within);
    const begun = both(k.compare('ge.s32', channel, 0));
    const small = k.compare('lt.s32', channel, channels);
    const inside = k.set('p', 'and.pred', begun, small);
    const step = both(k.compare('ge.s32', channel, channels));
    return { channel, inside, step };
  }

  /**
   * Asks for what needs no product: the vector to add; of a channel the convolution's older taps, of a step size its bias. Before the rows, or
   * it would come after them.
   */
  ask(): void {
    const { k, spec } = this.w;
    if (spec.residual) {
      const at = k.address(this.w.pointer('residual'), this.place, 4);
      this.added = k.register('f');
      k.when(this.within, () => k.run('ld.global.f32', this.added, `[${at}]`));
    }
    if (spec.activations) this.channelsAsked = this.askChannels(spec.activations);
  }

  private added = '';
  private channelsAsked: Asked | null = null;

  private askChannels(after: Activations): Asked {
    const { k } = this.w;
    const { channel, inside, step } = this.channel(this.place, this.within);
    const offset = k.set('d', 'mul.wide.s32', channel, 4);
    const tapAt = k.set('d', 'add.s64', this.w.pointer('taps'), k.set('d', 'mul.wide.s32', channel, 4 * after.taps));
    const start = k.int('ld.global.nc.b32', `[${this.w.pointer('place')}]`);
    const context = k.set('d', 'add.s64', k.address(this.w.pointer('context'), start, 4), offset);
    let moves = this.w.moves === 'never' ? null : inside;
    let newest: string | null = null;
    if (moves) {
      let other: string | number = -1;
      if (this.w.moves === 'masked') {
        const mask = k.set('f', 'ld.global.nc.f32', `[${this.w.pointer('mask')}]`);
        const on = k.compare('gt.f32', mask, '0f00000000');
        moves = k.set('p', 'and.pred', inside, on);
        other = k.int('selp.u32', -1, STILL, on);
      }
      const own = k.int('add.u32', k.int('add.u32', start, channel), (after.taps - 2) * after.channels);
      newest = k.int('selp.u32', own, other, moves);
    }
    const taps = k.registers('f', after.taps);
    const old = k.registers('f', after.taps - 1);
    k.when(inside, () => {
      taps.forEach((tap, i) => k.run('ld.global.f32', tap, `[${tapAt}+${4 * i}]`));
      old.forEach((x, i) => k.run('ld.global.f32', x, `[${context}+${4 * i * after.channels}]`));
    });
    let bias: string | null = null;
    if (after.bias) {
      bias = k.register('f');
      const at = k.set('d', 'add.s64', this.w.pointer('bias'), offset);
      k.when(inside, () => k.run('ld.global.f32', bias!, `[${at}]`));
    }
    const [stepBias, rate] = k.registers('f', 2);
    const at = k.set('d', 'add.s64', this.w.pointer('dt_bias'), offset);
    const rateAt = k.set('d', 'add.s64', this.w.pointer('A_log'), offset);
    k.when(step, () => {
      k.run('ld.global.f32', stepBias, `[${at}+${-4 * after.channels}]`);
      k.run('ld.global.f32', rate, `[${rateAt}+${-4 * after.channels}]`);
    });
    return { inside, step, moves, context, newest, taps, old, bias, stepBias: stepBias!, rate: rate! };
  }

  /** Keeps it until there are products, in shared memory. @param zero see PtxWriter.barrierZero */
  keep(zero: string): void {
    const { k, spec } = this.w;
    if (!this.ready) return;
    const to = k.place(this.ready, k.thread, 8);
    if (spec.residual) k.when(this.within, () => k.run('st.shared.f32', `[${to}]`, this.added));
    if (!this.channelsAsked) return;
    const { inside, step, moves, context, newest, taps, old, bias, stepBias, rate } = this.channelsAsked;
    const { channels } = spec.activations!;
    const known = k.float('mov.b32', zero);
    const factor = k.float('mov.f32', 0);
    k.when(inside, () => {
      old.forEach((x, i) => k.run('fma.rn.f32', known, taps[i]!, x, known));
      if (bias) k.run('add.f32', known, known, bias);
      k.run('mov.f32', factor, taps.at(-1)!);
    });
    k.when(step, () => {
      k.run('mov.f32', known, stepBias);
      k.run('mov.f32', factor, rate);
    });
    k.when(moves, () => {
      if (moves) old.slice(1).forEach((x, i) => k.run('st.global.f32', `[${context}+${4 * i * channels}]`, x));
    });
    k.when(this.within, () => k.run('st.shared.v2.f32', `[${to}]`, `{${known}, ${factor}}`));
    if (newest) {
      const at = k.place(this.newest!, k.thread, 4);
      k.when(this.within, () => k.run('st.shared.b32', `[${at}]`, newest));
    }
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
    const { parts } = tiling;
    const from = k.place(this.sums, row, 4 * parts);
    const place = k.int('add.u32', this.w.base, row);
    const terms = k.registers('f', parts);
    k.when(within, () => terms.forEach((term, i) => k.run('ld.shared.f32', term, `[${from}+${4 * i}]`)));
    let y = terms.reduce((a, b) => k.float('add.f32', a, b));
    if (scale) y = k.float('mul.f32', y, scale);
    if (spec.residual) {
      const added = k.register('f');
      const at = k.place(this.ready!, row, 8);
      k.when(within, () => k.run('ld.shared.f32', added, `[${at}]`));
      y = k.float('add.f32', y, added);
    }
    const to = k.address(this.w.pointer('y'), place, 4);
    if (spec.activations) this.activate(row, place, within, y, to);
    else k.when(within, () => k.run('st.global.f32', `[${to}]`, y));
  }

  /** The gate with SiLU; convolution with SiLU, or step sizes and decays, stored behind all y. */
  private activate(row: string, place: string, within: string, y: string, at: string): void {
    const { k, spec } = this.w;
    const { first, limit, heads } = spec.activations!;
    const { inside, step } = this.channel(place, within);
    const [known, factor] = k.registers('f', 2);
    const from = k.place(this.ready!, row, 8);
    k.when(within, () => k.run('ld.shared.v2.f32', `{${known}, ${factor}}`, `[${from}]`));
    const convolution = k.float('fma.rn.f32', y, factor!, known!);
    const gate = k.compare('lt.u32', place, first);
    const activated = k.silu(k.float('selp.f32', y, convolution, gate));
    let dt = k.softplus(k.float('add.f32', y, known!));
    if (limit[0] > 0) dt = k.float('max.f32', dt, limit[0]);
    if (Number.isFinite(limit[1])) dt = k.float('min.f32', dt, limit[1]);
    const shift = 4 * (spec.out - first);
    const rate = k.exp(k.float('min.f32', factor!, 80));
    const decay = k.exp(k.float('max.f32', k.float('mul.f32', dt, k.float('neg.f32', rate)), -87));
    const stored = k.float('selp.f32', activated, y, gate);
    k.when(within, () => k.run('st.global.f32', `[${at}]`, stored));
    if (this.newest) {
      const newest = k.int('mov.u32', -1);
      const from = k.place(this.newest, row, 4);
      k.when(within, () => k.run('ld.shared.b32', newest, `[${from}]`));
      const to = k.address(this.w.pointer('context'), newest, 4);
      if (spec.activations!.taps > 1)
        k.when(k.compare('ge.s32', newest, 0), () => k.run('st.global.f32', `[${to}]`, y));
      // a step of nothing leaves the state as it is
      dt = k.float('selp.f32', 0, dt, k.compare('eq.s32', newest, STILL));
    }
    k.when(inside, () => k.run('st.global.f32', `[${at}+${shift}]`, activated));
    k.when(step, () => {
      k.run('st.global.f32', `[${at}+${shift}]`, dt);
      k.run('st.global.f32', `[${at}+${shift + 4 * heads}]`, decay);
    });
  }
}
