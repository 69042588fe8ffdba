/**
 * Brings a text to an end of its grammar before its tokens are used up: JSON that `max_tokens` would cut off closes what is open instead.
 *
 * A way to the end is found by trial, and its length L is known. While more tokens are left than that and as many as the longest thing that one
 * token could open, everything may come. Then only what opens nothing may, which leaves L as it is; and when L are left, the way itself.
 */
import type * as xgrammar from '@mlc-ai/web-xgrammar';

/** Longest way that is looked for. */
const LONGEST = 1024;
/** How often a way has a token in a row, and one that closes nothing in all, before it counts as going round. */
const MOST_IN_A_ROW = { closing: 8, other: 2 };
const MOST_ROUNDS = 16;

/** Which tokens close, and which open nothing: the same for all texts of a vocabulary. */
export class Closers {
  /** Ids in the order in which a way to the end takes them. */
  readonly order: readonly number[];
  /** Ids of single printable characters, marks first. */
  private readonly single: readonly number[];
  private readonly closing: ReadonlySet<number>;
  /** A bit for each id that opens nothing. */
  readonly plain: Int32Array;

  /** @param ends ids that end a text @param text of a token; empty for those that never stand in one */
  constructor(vocab_size: number, ends: readonly number[], text: (id: number) => string) {
    const ids = Array.from({ length: vocab_size }, (_, id) => id).filter((id) => !ends.includes(id) && text(id) !== '');
    // those beyond ASCII last: parts of characters want other parts
    const isBeyond = (id: number): number => Number(/[^ -~]/.test(text(id)));
    const longestFirst = (a: number, b: number): number => isBeyond(a) - isBeyond(b) || text(b).length - text(a).length;
    const closing = ids.filter((id) => /^["}\]]+$/.test(text(id))).sort(longestFirst);
    const others = ids.filter((id) => !/^["}\]]+$/.test(text(id)));
    const solid = others.filter((id) => !/\s/.test(text(id))).sort(longestFirst);
    const spaced = others.filter((id) => /\s/.test(text(id))).sort(longestFirst);
    this.order = [...ends, ...closing, ...solid, ...spaced];
    this.closing = new Set([...ends, ...closing]);
    // marks before letters and digits: it is mostly one of them that ends a run of others
    const isMark = (id: number): number => Number(/\W/.test(text(id)));
    this.single = [...closing, ...others]
      .filter((id) => /^[!-~]$/.test(text(id)))
      .sort((a, b) => isMark(b) - isMark(a));
    this.plain = new Int32Array((vocab_size + 31) >>> 5);
    for (const id of ids) if (!/[{[",\\]/.test(text(id))) this.plain[id >>> 5]! |= 1 << (id & 31);
    for (const id of ends) this.plain[id >>> 5]! |= 1 << (id & 31);
  }

  opensNothing(id: number): boolean {
    return has(this.plain, id);
  }

  /** Ways to an end go by these. */
  get steps(): Steps {
    return new Steps(this.order, this.single, this.closing);
  }
}

/**
 * Chooses the tokens of one way to the end. A way that goes round, as in the text of a pattern that wants a certain character after any
 * number of others, goes on by the single characters in turn, so that it comes by the one that is wanted.
 */
class Steps {
  private readonly used = new Map<number, number>();
  /** How often the last token came in a row. */
  private run = 0;
  private last = -1;
  private round = false;

  constructor(
    private readonly order: readonly number[],
    private readonly single: readonly number[],
    private readonly closing: ReadonlySet<number>,
  ) {}

  next(mask: Int32Array): number | undefined {
    const first = this.order.find((id) => has(mask, id));
    if (first === undefined) return undefined;
    const id = this.goesRound(first) ? (this.leastUsed(mask) ?? first) : first;
    this.run = id === this.last ? this.run + 1 : 1;
    this.last = id;
    this.used.set(id, this.count(id) + 1);
    return id;
  }

  private goesRound(first: number): boolean {
    const closes = this.closing.has(first);
    const most = closes ? MOST_IN_A_ROW.closing : MOST_IN_A_ROW.other;
    const again = (first === this.last && this.run >= most) || (!closes && this.count(first) >= MOST_ROUNDS);
    if (again && !this.round) {
      this.round = true;
      this.used.clear();
    }
    return this.round;
  }

  private leastUsed(mask: Int32Array): number | undefined {
    let best: number | undefined;
    for (const id of this.single)
      if (has(mask, id) && (best === undefined || this.count(id) < this.count(best))) best = id;
    return best;
  }

  private count(id: number): number {
    return this.used.get(id) ?? 0;
  }
}

/** Goes on from a text by tokens that are taken back. */
export interface Trial {
  mask(): Int32Array;
  /** Whether the token could be taken. */
  take(id: number): boolean;
}

export class Closing {
  /** The way to the end, where it is known. */
  private way: number[] = [];
  private stale = true;
  /** Length of the way when it was last known, and tokens since then that may have opened something. */
  private length = 0;
  private opened = 0;
  /** Length of the way from the beginning: the most that one token opens. null where there is none. */
  private whole: number | null | undefined;

  /** @param left tokens that the text may have @param trial begins one at what the text is now */
  constructor(
    private readonly matcher: xgrammar.GrammarMatcher,
    private readonly closers: Closers,
    private left: number,
    private readonly trial: () => Trial,
  ) {}

  /** Takes out of the mask what would not come to an end in time. */
  restrict(mask: Int32Array): void {
    if (this.whole === undefined) this.begin();
    const { whole, closers } = this;
    if (whole == null || this.left > this.length + this.opened * whole + whole + 2) return;
    if (this.stale || !has(mask, this.way[0]!)) this.find();
    if (this.stale || this.left > this.length + whole + 2) return;
    const next = this.way[0]!;
    if (this.left <= this.length) mask.fill(0);
    else for (let at = 0; at < mask.length; at++) mask[at]! &= closers.plain[at]!;
    mask[next >>> 5]! |= 1 << (next & 31);
  }

  /** A token was chosen. */
  note(id: number): void {
    this.left--;
    if (!this.stale && id === this.way[0]) {
      this.way.shift();
      this.length--;
      this.stale = this.way.length === 0;
    } else if (!this.closers.opensNothing(id)) {
      this.opened++;
      this.stale = true;
    }
  }

  private begin(): void {
    this.find();
    // with too few tokens for anything whole the text is cut, as it would be
    this.whole = this.stale || this.length > this.left ? null : this.length;
  }

  /** Tries a way to the end, and takes it back. */
  private find(): void {
    const way: number[] = [];
    const { steps } = this.closers;
    const trial = this.trial();
    const most = Math.min(LONGEST, this.left);
    while (way.length < most && !this.matcher.isTerminated()) {
      const next = steps.next(trial.mask());
      if (next === undefined || !trial.take(next)) break;
      way.push(next);
    }
    this.stale = !this.matcher.isTerminated() || way.length === 0;
    if (way.length) this.matcher.rollBack(way.length);
    this.way = way;
    if (!this.stale) this.length = way.length;
    this.opened = 0;
  }
}

function has(mask: Int32Array, id: number): boolean {
  return ((mask[id >>> 5]! >>> (id & 31)) & 1) === 1;
}
