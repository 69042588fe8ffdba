/** Deterministic automata of regular expressions: which texts have a part that fits, and so many characters. */
import { ALL, type CodePoints, union } from './code_points.js';
import { RegexFault, type RegexNode } from './regex.js';

/** From each state one can come to the end. The first is where a text begins. */
export interface Automaton {
  readonly states: readonly State[];
}

export interface State {
  readonly accepts: boolean;
  readonly edges: readonly { set: CodePoints; to: number }[];
}

/** Most nodes of an expression with its repetitions written out, most states, and most steps on the way to them. */
const MOST_NODES = 4000;
const MOST_STATES = 2000;
const MOST_STEPS = 2_000_000;

/** An automaton with steps that read nothing, some of them at the beginning or the end of the text only (Thompson's). */
class Net {
  readonly free: number[][] = [];
  readonly atBegin: number[][] = [];
  readonly atEnd: number[][] = [];
  readonly reading: { set: CodePoints; to: number }[][] = [];
  readonly start: number;
  readonly goal: number;

  constructor(root: RegexNode) {
    this.start = this.node();
    // anything may stand before what fits, and after it
    this.reading[this.start]!.push({ set: ALL, to: this.start });
    const first = this.node();
    this.free[this.start]!.push(first);
    this.goal = this.add(root, first);
    const after = this.node();
    this.reading[after]!.push({ set: ALL, to: after });
    this.free[this.goal]!.push(after);
    this.goal = after;
  }

  /** @returns where the expression is done */
  private add(node: RegexNode, from: number): number {
    switch (node.kind) {
      case 'set': {
        const to = this.node();
        this.reading[from]!.push({ set: node.set, to });
        return to;
      }
      case 'begin':
      case 'end': {
        const to = this.node();
        (node.kind === 'begin' ? this.atBegin : this.atEnd)[from]!.push(to);
        return to;
      }
      case 'sequence':
        return node.parts.reduce((at, part) => this.add(part, at), from);
      case 'choice': {
        const to = this.node();
        for (const part of node.parts) {
          const first = this.node();
          this.free[from]!.push(first);
          this.free[this.add(part, first)]!.push(to);
        }
        return to;
      }
      case 'repeat':
        return this.repeat(node, from);
    }
  }

  private repeat({ body, min, max }: RegexNode & { kind: 'repeat' }, from: number): number {
    let at = from;
    for (let time = 0; time < min; time++) at = this.add(body, at);
    if (max === Infinity) {
      const loop = this.node();
      this.free[at]!.push(loop);
      this.free[this.add(body, loop)]!.push(loop);
      return loop;
    }
    const to = this.node();
    for (let time = min; time < max; time++) {
      this.free[at]!.push(to);
      at = this.add(body, at);
    }
    this.free[at]!.push(to);
    return to;
  }

  private node(): number {
    if (this.free.length >= MOST_NODES) throw new RegexFault('asks for too many states');
    for (const list of [this.free, this.atBegin, this.atEnd, this.reading]) list.push([]);
    return this.free.length - 1;
  }
}

/**
 * @param length how many characters the text may have
 * @returns null where no text fits
 * @throws RegexFault for an automaton that would be too large
 */
export function automatonOf(root: RegexNode, length: { min: number; max: number }): Automaton | null {
  return trimmed(new Subsets(new Net(root), length).states);
}

/** States as sets of nodes, with as much of the count of characters as matters. */
class Subsets {
  readonly states: { accepts: boolean; edges: { set: CodePoints; to: number }[] }[] = [];
  private readonly known = new Map<string, number>();
  private readonly todo: { nodes: readonly number[]; count: number; at: number }[] = [];
  /** Ranges that no set divides. */
  private readonly atoms: CodePoints;
  private steps = 0;

  constructor(
    private readonly net: Net,
    private readonly length: { min: number; max: number },
  ) {
    this.atoms = atomsOf(net.reading.flatMap((edges) => edges.map(({ set }) => set)));
    this.state(this.closure([net.start], true, false), 0);
    for (let next = this.todo.pop(); next; next = this.todo.pop()) this.follow(next);
  }

  private state(nodes: readonly number[], count: number): number {
    const key = `${count}:${nodes.join()}`;
    const known = this.known.get(key);
    if (known !== undefined) return known;
    const at = this.states.length;
    if (at >= MOST_STATES) throw new RegexFault('asks for too many states');
    const { min } = this.length;
    const accepts = count >= min && this.closure(nodes, at === 0, true).includes(this.net.goal);
    this.states.push({ accepts, edges: [] });
    this.known.set(key, at);
    this.todo.push({ nodes, count, at });
    return at;
  }

  private follow({ nodes, count, at }: { nodes: readonly number[]; count: number; at: number }): void {
    const { min, max } = this.length;
    if (count >= max) return;
    // without an upper bound only those below the lower one are counted
    const next = max === Infinity ? Math.min(count + 1, min) : count + 1;
    const edges = nodes.flatMap((node) => this.net.reading[node]!);
    const sets = new Map<number, [number, number][]>();
    for (const [from, to] of this.atoms) {
      const reached = edges.filter(({ set }) => set.some(([low, high]) => low <= from && to <= high));
      this.step(edges.length);
      if (reached.length === 0) continue;
      const closed = this.closure(
        reached.map((edge) => edge.to),
        false,
        false,
      );
      const target = this.state(closed, next);
      const ranges = sets.get(target);
      if (ranges) ranges.push([from, to]);
      else sets.set(target, [[from, to]]);
    }
    this.states[at]!.edges = [...sets].map(([to, ranges]) => ({ set: union(ranges), to }));
  }

  /** All nodes that are reached without reading, in order. */
  private closure(nodes: readonly number[], begin: boolean, end: boolean): number[] {
    const { free, atBegin, atEnd } = this.net;
    const found = new Set(nodes);
    // a set takes in what is added while it is gone through
    for (const node of found) {
      this.step(1);
      for (const to of free[node]!) found.add(to);
      if (begin) for (const to of atBegin[node]!) found.add(to);
      if (end) for (const to of atEnd[node]!) found.add(to);
    }
    return [...found].sort((a, b) => a - b);
  }

  private step(count: number): void {
    this.steps += count;
    if (this.steps > MOST_STEPS) throw new RegexFault('asks for too many states');
  }
}

function atomsOf(sets: readonly CodePoints[]): CodePoints {
  const starts = new Set(ALL.map(([from]) => from));
  for (const set of sets)
    for (const [from, to] of set) {
      starts.add(from);
      starts.add(to + 1);
    }
  const sorted = [...starts].sort((a, b) => a - b);
  return ALL.flatMap(([low, high]) => {
    const within = sorted.filter((start) => start >= low && start <= high);
    return within.map((start, at) => [start, (within[at + 1] ?? high + 1) - 1] as const);
  });
}

/** Without the states from which no text comes to an end. */
function trimmed(states: readonly State[]): Automaton | null {
  const sources = states.map((): number[] => []);
  states.forEach(({ edges }, at) => edges.forEach(({ to }) => sources[to]!.push(at)));
  const alive = new Set(states.flatMap(({ accepts }, at) => (accepts ? [at] : [])));
  for (const state of alive) for (const source of sources[state]!) alive.add(source);
  if (!alive.has(0)) return null;
  const kept = states.map((_, at) => at).filter((at) => alive.has(at));
  const place = new Map(kept.map((at, index) => [at, index]));
  return {
    states: kept.map((at) => ({
      accepts: states[at]!.accepts,
      edges: states[at]!.edges.filter(({ to }) => alive.has(to)).map(({ set, to }) => ({ set, to: place.get(to)! })),
    })),
  };
}
