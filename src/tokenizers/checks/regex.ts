/**
 * How long a regular expression of a tokenizer may take. Neither of the engines that run them is linear: one gives up after ten million
 * steps and takes the process along, the other never does. So patterns are judged before they run, as the automata that they are
 * (Weber and Seidl, "On the degree of ambiguity of finite automata"): two ways through one loop for one text are a time that doubles with
 * each character; three loops one behind the other over one character are its cube.
 */
import { parseRegex, RegexSyntaxFault, type CharacterSet, type RegexNode } from './regex_syntax.js';

/** Longest pattern; those of public tokenizers have some hundred characters. */
const LONGEST = 20_000;
/** Most characters of a pattern, repetitions counted. */
const MOST_POSITIONS = 3000;
/** A repetition of so many is a loop. */
const LOOP = 5;
/** Loops one behind the other that one character may run through. */
const MOST_LOOPS = 2;

const judged = new Map<string, string | null>();

/** What is wrong with a pattern, as the end of a sentence that begins with its name; null where it takes time that is bounded. */
export function regexFault(pattern: string): string | null {
  let fault = judged.get(pattern);
  if (fault === undefined) judged.set(pattern, (fault = judge(pattern)));
  return fault;
}

function judge(pattern: string): string | null {
  if (pattern.length > LONGEST) return `has ${pattern.length} characters; at most ${LONGEST} are read`;
  try {
    const looks: RegexNode[] = [parseRegex(pattern)];
    for (let at = 0; at < looks.length; at++) {
      const automaton = new Automaton(looks[at]!, looks);
      const fault = automaton.exponential() ?? automaton.polynomial();
      if (fault) return fault;
    }
    return null;
  } catch (error) {
    if (error instanceof RegexSyntaxFault) return error.message;
    throw error;
  }
}

/** Where a part of a pattern begins and ends, and whether it may be empty. */
interface Part {
  first: number[];
  last: number[];
  empty: boolean;
}

/** Glushkov's automaton: a state for each character of a pattern. */
class Automaton {
  private readonly sets: CharacterSet[] = [];
  /** state to the states that may follow it, and in how many ways each */
  private readonly follow: Map<number, number>[] = [];

  /** @param looks gets what is looked for around a match: automata of their own */
  constructor(
    root: RegexNode,
    private readonly looks: RegexNode[],
  ) {
    this.build(root);
  }

  private build(node: RegexNode): Part {
    switch (node.kind) {
      case 'set': {
        if (this.sets.length >= MOST_POSITIONS) throw new RegexSyntaxFault('is too large');
        const state = this.sets.push(node.set) - 1;
        this.follow.push(new Map());
        return { first: [state], last: [state], empty: false };
      }
      case 'look':
        if (this.looks.length > 100) throw new RegexSyntaxFault('is too large');
        if (!this.looks.includes(node.body)) this.looks.push(node.body);
        return { first: [], last: [], empty: true };
      case 'choice': {
        const parts = node.parts.map((part) => this.build(part));
        return {
          first: parts.flatMap(({ first }) => first),
          last: parts.flatMap(({ last }) => last),
          empty: parts.some(({ empty }) => empty),
        };
      }
      case 'sequence':
        return node.parts.reduce<Part>((before, part) => this.join(before, this.build(part)), {
          first: [],
          last: [],
          empty: true,
        });
      case 'repeat':
        return this.repeat(node.body, node.min, node.max);
    }
  }

  private connect(from: readonly number[], to: readonly number[]): void {
    for (const a of from) for (const b of to) this.follow[a]!.set(b, (this.follow[a]!.get(b) ?? 0) + 1);
  }

  private join(a: Part, b: Part): Part {
    this.connect(a.last, b.first);
    return {
      first: a.empty ? [...a.first, ...b.first] : a.first,
      last: b.empty ? [...a.last, ...b.last] : b.last,
      empty: a.empty && b.empty,
    };
  }

  private repeat(body: RegexNode, min: number, max: number): Part {
    if (max === 0) return { first: [], last: [], empty: true };
    const loop = max >= LOOP;
    // a few copies of what must be there, and one that loops
    const copies = loop ? Math.max(1, Math.min(min, LOOP)) : max;
    let part: Part = { first: [], last: [], empty: true };
    for (let i = 0; i < copies; i++) {
      const copy = this.build(body);
      if (loop && i === copies - 1) this.connect(copy.last, copy.first);
      part = this.join(part, { ...copy, empty: copy.empty || i >= min });
    }
    return part;
  }

  private meets(a: number, b: number): boolean {
    const other = this.sets[b]!;
    return this.sets[a]!.some((allowed, i) => allowed && other[i]);
  }

  /** Whether some text has two ways from a state back to it. */
  exponential(): string | null {
    const why = 'takes time that doubles with each character: two ways lead through one of its loops';
    for (const loop of this.loops()) {
      for (const a of loop) for (const b of loop) if ((this.follow[a]!.get(b) ?? 0) > 1) return why;
      if (loop.size > 200) return 'has a loop that is too large';
      if (loop.size > 1 && this.parts(loop)) return why;
    }
    return null;
  }

  /** Whether two walks through a loop over one text part and meet again. */
  private parts(loop: ReadonlySet<number>): boolean {
    const inside = (state: number): number[] => [...this.follow[state]!.keys()].filter((next) => loop.has(next));
    const edges = new Map([...loop].map((state) => [state, inside(state)]));
    const key = (a: number, b: number): number => a * MOST_POSITIONS + b;
    const back = new Map<number, number[]>();
    const seen = new Set<number>([...loop].map((state) => key(state, state)));
    const open = [...seen];
    while (open.length > 0) {
      const from = open.pop()!;
      const [a, b] = [Math.floor(from / MOST_POSITIONS), from % MOST_POSITIONS];
      for (const nextA of edges.get(a)!) {
        for (const nextB of edges.get(b)!) {
          if (!this.meets(nextA, nextB)) continue;
          const to = key(nextA, nextB);
          (back.get(to) ?? back.set(to, []).get(to)!).push(from);
          if (!seen.has(to)) open.push(to);
          seen.add(to);
        }
      }
    }
    const found = [...loop].map((state) => key(state, state));
    const reached = new Set(found);
    while (found.length > 0) {
      for (const from of back.get(found.pop()!) ?? []) {
        if (Math.floor(from / MOST_POSITIONS) !== from % MOST_POSITIONS) return true;
        if (!reached.has(from)) found.push(from);
        reached.add(from);
      }
    }
    return false;
  }

  /** Strongly connected parts that a walk can stay in (Tarjan). */
  private loops(): Set<number>[] {
    const order = new Map<number, number>();
    const low: number[] = [];
    const stack: number[] = [];
    const on = new Set<number>();
    const found: Set<number>[] = [];
    const visit = (state: number): void => {
      order.set(state, order.size);
      low[state] = order.get(state)!;
      stack.push(state);
      on.add(state);
      for (const next of this.follow[state]!.keys()) {
        if (!order.has(next)) visit(next);
        if (on.has(next)) low[state] = Math.min(low[state], low[next]!);
      }
      if (low[state] !== order.get(state)) return;
      const loop = new Set<number>();
      let top: number;
      do {
        top = stack.pop()!;
        on.delete(top);
        loop.add(top);
      } while (top !== state);
      if (loop.size > 1 || this.follow[state]!.has(state)) found.push(loop);
    };
    for (let state = 0; state < this.sets.length; state++) if (!order.has(state)) visit(state);
    return found;
  }

  /** Whether one character, repeated, runs through too many loops one behind the other. */
  polynomial(): string | null {
    const loops = this.sets.flatMap((_, state) => (this.follow[state]!.has(state) ? [state] : []));
    if (loops.length <= MOST_LOOPS) return null;
    const characters = this.sets[0]!.length;
    for (let c = 0; c < characters; c++) {
      const most = new Map<number, number>();
      const longest = (state: number): number => {
        const known = most.get(state);
        if (known !== undefined) return known;
        most.set(state, 0); // on the way: a loop over several states counts once
        let behind = 0;
        for (const next of this.follow[state]!.keys())
          if (next !== state && this.sets[next]![c]) behind = Math.max(behind, longest(next));
        const count = behind + Number(this.follow[state]!.has(state));
        most.set(state, count);
        return count;
      };
      for (const state of loops) {
        if (this.sets[state]![c] && longest(state) > MOST_LOOPS)
          return `takes time that grows faster than the square of a text: more than ${MOST_LOOPS} of its loops take one character`;
      }
    }
    return null;
  }
}
