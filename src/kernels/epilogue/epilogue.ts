/**
 * The epilogue of an input projection, z | xBC | dt, once for all kernels of GPUs: z becomes silu(z), xBC a step of the causal convolution
 * with SiLU, dt step sizes, and decays exp(-exp(A_log)·dt) follow. epilogue/reference.ts says the same in plain loops.
 */
import { type Elementwise, joined } from './elementwise.js';
import type { EpilogueSpec } from './spec.js';

/** What belongs to a position alone. Of a channel of the convolution its taps, the oldest first, and its bias; of a head dt_bias and A_log. */
export interface EpilogueOperands<V> {
  taps: V[];
  bias: V;
  dtBias: V;
  ALog: V;
}

/** What of a position is known before its product is. */
export interface EpilogueKnown<V> {
  /** bias + Σ older inputs times their taps, and the tap of the newest. */
  older: V;
  newest: V;
  dtBias: V;
  ALog: V;
}

export interface EpilogueResult<V> {
  /** silu(z), xBC after the convolution with SiLU, or dt. */
  value: V;
  /** Of a head. */
  decay: V;
}

/** The epilogue at one position a lane, among z | xBC | dt. */
export class Epilogue<V, P> {
  /** Where the position is one of xBC | dt, of xBC, and of dt. */
  readonly behind: V | null;
  readonly convolved: V;
  readonly head: V;
  private readonly channel: V;

  /** @param exists where there is such a position at all */
  constructor(
    private readonly e: Elementwise<V, P>,
    private readonly spec: EpilogueSpec,
    private readonly position: V,
    private readonly exists: V | null,
  ) {
    const { first, channels } = spec;
    this.channel = e.plus(position, -first);
    this.behind = first > 0 ? joined(e, e.atLeast(this.channel, 0), exists) : exists;
    this.convolved = joined(e, e.less(this.channel, channels), this.behind)!;
    this.head = joined(e, e.atLeast(this.channel, channels), exists)!;
  }

  operands(): EpilogueOperands<V> {
    const { e, channel } = this;
    const { channels, taps, bias } = this.spec;
    const tapsAt = e.place('taps', channel, taps);
    return {
      taps: Array.from({ length: taps }, (_, i) => e.load(tapsAt, i, this.convolved)),
      bias: bias ? e.load(e.place('bias', channel), 0, this.convolved) : e.constant(0),
      dtBias: e.load(e.place('dt_bias', channel), -channels, this.head),
      ALog: e.load(e.place('A_log', channel), -channels, this.head),
    };
  }

  /** Where the context of the layer begins. @param row of the context, of `width` elements; its only one when absent */
  contextAt(parameter: string, row?: V, width?: number): P {
    const { e } = this;
    const at = e.shift(e.place(parameter, this.channel), e.scalar('place'));
    return row === undefined ? at : e.shift(at, row, width);
  }

  /** Raw inputs before, the oldest first. @param at see contextAt() @param offset elements further on */
  context(at: P, offset = 0, where = this.convolved): V[] {
    const { taps, channels } = this.spec;
    return Array.from({ length: taps - 1 }, (_, i) => this.e.load(at, offset + i * channels, where));
  }

  known({ taps, bias, dtBias, ALog }: EpilogueOperands<V>, context: readonly V[]): EpilogueKnown<V> {
    const older = context.reduce((sum, x, i) => this.e.fma(x, taps[i]!, sum), bias);
    return { older, newest: taps[taps.length - 1]!, dtBias, ALog };
  }

  /** @param y the product @param mask 0 where the row is switched off: it has no step */
  finish(y: V, { older, newest, dtBias, ALog }: EpilogueKnown<V>, mask?: V): EpilogueResult<V> {
    const { e } = this;
    const convolution = e.fma(y, newest, older);
    const activated = e.silu(this.gated(y, convolution));
    const dt = this.stepSize(e.add(y, dtBias), mask);
    const rate = e.negate(e.exp(ALog, { most: 80 }));
    return {
      value: e.select(this.head, dt, activated),
      decay: e.exp(e.multiply(dt, rate), { least: -87 }),
    };
  }

  /** Of one row: silu(z) and the rest as projected, and behind that what becomes of the rest. @param out positions there are */
  storeBehind(y: V, { value, decay }: EpilogueResult<V>, out: number): void {
    const { e } = this;
    const { first, heads } = this.spec;
    const at = e.place('y', this.position);
    e.store(at, 0, this.gated(value, y), this.exists);
    e.store(at, out - first, value, this.behind);
    e.store(at, out - first + heads, decay, this.head);
  }

  /** a where the position is one of the gate, z, else b. */
  private gated(a: V, b: V): V {
    const { e } = this;
    const { first } = this.spec;
    return first > 0 ? e.select(e.less(this.position, first), a, b) : b;
  }

  private stepSize(x: V, mask?: V): V {
    const { e } = this;
    const [least, most] = this.spec.limit;
    let dt = e.softplus(x);
    if (least > 0) dt = e.noLess(dt, least);
    if (Number.isFinite(most)) dt = e.atMost(dt, most);
    return mask === undefined ? dt : e.multiply(dt, mask);
  }
}
