/** What the epilogue is written over: arithmetic and memory of one element a lane, which the writers of Triton and of PTX both have. */

/**
 * `V` is a value: a float32, an index (int32) or a condition. `P` is a place in memory: an element of a parameter for each lane.
 * A condition of null holds everywhere.
 */
export interface Elementwise<V, P> {
  /** Sum of an index and a number. */
  plus(index: V, by: number): V;
  less(index: V, than: number): V;
  atLeast(index: V, least: number): V;
  both(a: V, b: V): V;

  /** Element index·stride of a parameter of float32. */
  place(parameter: string, index: V, stride?: number): P;
  /** index·stride elements further on. */
  shift(at: P, index: V, stride?: number): P;
  /** The only element of a parameter of int32. */
  scalar(parameter: string): V;
  /** The element `offset` further on; nothing is read where the condition does not hold, and the value is any. */
  load(at: P, offset: number, where: V | null): V;
  store(at: P, offset: number, value: V, where: V | null): void;

  constant(value: number): V;
  add(a: V, b: V): V;
  multiply(a: V, b: V): V;
  /** a·b + c */
  fma(a: V, b: V, c: V): V;
  negate(x: V): V;
  atMost(x: V, most: number): V;
  noLess(x: V, least: number): V;
  /** exp(x). Where the writer's own exponential does not hold outside of them, x is cut at these bounds first. */
  exp(x: V, bounds: { least?: number; most?: number }): V;
  /** x / (1 + exp(-x)), of any x. */
  silu(x: V): V;
  /** log(1 + exp(x)), of any x, exact also where it is small. */
  softplus(x: V): V;
  select(condition: V, a: V, b: V): V;
}

/** Both conditions, of which each may be null. */
export function joined<V, P>(e: Elementwise<V, P>, a: V | null, b: V | null): V | null {
  return a !== null && b !== null ? e.both(a, b) : (a ?? b);
}
