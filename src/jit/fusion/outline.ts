/**
 * Outlining: what lies between two cuts of a traced function becomes a function of its own. Those of the same text, as equal stages of a
 * computation have it, are one: TensorFlow, which looks at all functions of a graph again and again, has fewer to look at, and converts each
 * for XLA once.
 *
 * At borders the outlined functions are called by the whole, one program of XLA; or, with `compileOutlined`, they are programs of their
 * own, and those of the same text are compiled once. At nodes that TensorFlow runs itself, every outlined function is a program of XLA.
 * Reason: TensorFlow's own matrix products may be faster than XLA's (on a CPU oneDNN multiplies bfloat16 by instructions that XLA does not
 * use).
 */
import { createHash } from 'node:crypto';
import type { Pieces } from '../../base/pieces.js';
import type { FunctionGraph } from '../trace/graph.js';
import { attr, type Argument, type Attr, type FunctionText, type NodeText } from '../trace/graphdef.js';

/**
 * How outlined functions and their calls are named in graphs. TensorFlow orders what it may order freely by name, so a new name may
 * make another program.
 */
export const OUTLINED = 'piece_';

/** In place of a function's number: used by assignments alone. */
const AT_END = -1;

const isControl = (ref: string): boolean => ref.startsWith('^');
function producer(ref: string): string {
  const colon = ref.indexOf(':');
  return ref.slice(isControl(ref) ? 1 : 0, colon < 0 ? undefined : colon);
}

/** Where each node runs: 'outer' for variables and cuts, 'copied' for constants, else the number of its outlined function. */
type Place = number | 'outer' | 'copied';

/**
 * Outlined functions are numbered by how many cuts come one after another before them. What depends on no cut would all be computed at
 * the start; a node that a single later function uses (what is made of variables that it alone reads) moves there, and a node that gathers
 * values of several functions to be assigned moves to the last one: so those of equal stages are the same, and no matrix that is
 * computed from a variable waits for its use.
 */
function places(text: FunctionText, cuts: ReadonlySet<string>): Map<string, Place> {
  const place = new Map<string, Place>();
  /** Cuts in a row up to and including this node. */
  const depth = new Map<string, number>();
  for (const { name, op, inputs } of text.nodes) {
    const from = inputs.map(producer);
    const before = Math.max(0, ...from.map((n) => depth.get(n) ?? 0));
    depth.set(name, cuts.has(name) ? before + 1 : before);
    if (op === 'ReadVariableOp' || op === 'AssignVariableOp' || cuts.has(name)) place.set(name, 'outer');
    else if (from.every((n) => place.get(n) === 'copied')) place.set(name, 'copied');
    else place.set(name, before);
  }
  const last = Math.max(...depth.values());
  /** The one function that a value is used in, or by a cut at its end; AT_END if only assigned; null for several. */
  const usedIn = new Map<string, number | null>(Object.values(text.returns).map((ref) => [producer(ref), null]));
  for (const node of [...text.nodes].reverse()) {
    const { name, op } = node;
    const use = usedIn.get(name);
    if (place.get(name) === 0 && typeof use === 'number' && use !== AT_END) place.set(name, use);
    const gathers =
      new Set(node.inputs.map((ref) => place.get(producer(ref))).filter((p) => typeof p === 'number')).size > 1;
    if (use === AT_END && gathers && typeof place.get(name) === 'number') place.set(name, last);
    const at = place.get(name)!;
    if (at === 'copied') continue;
    const before = depth.get(name)! - (cuts.has(name) ? 1 : 0);
    const user = op === 'AssignVariableOp' ? AT_END : at === 'outer' ? before : at;
    for (const input of node.inputs.map(producer))
      usedIn.set(input, usedIn.has(input) && usedIn.get(input) !== user ? null : user);
  }
  return place;
}

/** The nodes that `wanted` needs, each after its inputs, in an order that depends on nothing but their structure. */
function ordered(nodes: readonly NodeText[], wanted: readonly string[]): NodeText[] {
  const byName = new Map(nodes.map((node) => [node.name, node]));
  const done = new Set<string>();
  const order: NodeText[] = [];
  const stack = wanted.map(producer).reverse();
  while (stack.length > 0) {
    const name = stack[stack.length - 1]!;
    const node = byName.get(name);
    const waiting =
      node && !done.has(name) ? node.inputs.map(producer).filter((n) => byName.has(n) && !done.has(n)) : [];
    if (waiting.length > 0) {
      stack.push(...waiting.reverse());
      continue;
    }
    stack.pop();
    if (node && !done.has(name)) order.push(node);
    done.add(name);
  }
  return order;
}

/** Text of an outlined function, with names that depend on nothing but its contents. */
function outlinedText(
  nodes: readonly NodeText[],
  wanted: readonly string[],
  types: ReadonlyMap<string, number>,
): { fn: FunctionText; inputs: string[] } {
  const renamed = new Map(nodes.map((node, i) => [node.name, `n${i}`]));
  const inputs: string[] = [];
  const numbers = new Map<string, number>();
  const ref = (original: string): string => {
    const own = renamed.get(producer(original));
    if (own !== undefined) return original.includes(':') ? own + original.slice(original.indexOf(':')) : own;
    let at = numbers.get(original);
    if (at === undefined) numbers.set(original, (at = inputs.push(original) - 1));
    return `x${at}`;
  };
  const body = nodes.map((node) => ({ ...node, name: renamed.get(node.name)!, inputs: node.inputs.map(ref) }));
  const argument = (original: string, name: string): Argument => [name, types.get(original)!];
  const contents = {
    outputs: wanted.map((original, i) => argument(original, `y${i}`)),
    nodes: body,
    returns: Object.fromEntries(wanted.map((original, i) => [`y${i}`, ref(original)])),
    effects: [],
    attrs: {},
  };
  const signature = inputs.map((original, i) => argument(original, `x${i}`));
  const hash = createHash('sha1')
    .update(JSON.stringify([signature, contents], bytesAsText))
    .digest('hex');
  return { fn: { name: `${OUTLINED}${hash.slice(0, 16)}`, inputs: signature, ...contents }, inputs };
}

/** JSON has neither bytes nor infinities. */
function bytesAsText(_key: string, value: unknown): unknown {
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
  return value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value;
}

/** @param cluster whether the function is a program of XLA, and not part of one */
function callNode(name: string, fn: FunctionText, inputs: readonly string[], cluster: boolean): NodeText {
  const attrs: Record<string, Attr> = {
    Tin: attr.types(fn.inputs.map(([, dtype]) => dtype)),
    Tout: attr.types(fn.outputs.map(([, dtype]) => dtype)),
    f: attr.func(fn.name),
    config_proto: attr.string(''),
    executor_type: attr.string(''),
  };
  if (!cluster) return { name, op: 'PartitionedCall', inputs, attrs: { ...attrs, config: attr.string('') } };
  return { name, op: 'StatefulPartitionedCall', inputs, attrs: { ...attrs, _XlaMustCompile: attr.bool(true) } };
}

/** Constants (and what is computed from constants alone) that `refs` need. */
function constantsFor(
  refs: readonly string[],
  nodes: ReadonlyMap<string, NodeText>,
  place: ReadonlyMap<string, Place>,
): NodeText[] {
  const needed = new Set<string>();
  const visit = refs.map(producer);
  while (visit.length > 0) {
    const name = visit.pop()!;
    if (place.get(name) !== 'copied' || needed.has(name)) continue;
    needed.add(name);
    visit.push(...nodes.get(name)!.inputs.map(producer));
  }
  return [...needed].map((name) => nodes.get(name)!);
}

/** A function after outlining. */
export interface Outlined {
  /** Calls the outlined functions. */
  outer: FunctionText;
  functions: FunctionText[];
  /** Whether the outlined functions are programs of XLA, and the outer function is none. */
  clusters: boolean;
}

/**
 * Outlines what lies between the nodes that TensorFlow runs itself, or between borders if there is no such node.
 * @param graph what the text was made of
 * @param compileOutlined see DefineOptions
 * @returns null when there is no cut, or when the function hands variables to functions that it calls
 */
export function* outline(text: FunctionText, graph: FunctionGraph, compileOutlined: boolean): Pieces<Outlined | null> {
  const { types } = graph;
  const [tensorflow, borders] = [graph.cuts('tensorflow'), graph.cuts('border')];
  const present = new Set(text.nodes.map((node) => node.name));
  const some = [...tensorflow].some((name) => present.has(name));
  const clusters = some || compileOutlined;
  const cuts = some ? tensorflow : borders;
  const handles = new Set(text.inputs.map(([name]) => name).filter((name) => name.startsWith('h_')));
  const takesHandle = (node: NodeText): boolean => node.inputs.some((ref) => handles.has(ref));
  const access = new Set(['ReadVariableOp', 'AssignVariableOp']);
  if (![...cuts].some((name) => present.has(name))) return null;
  if (text.nodes.some((node) => takesHandle(node) && !access.has(node.op))) return null;

  const place = places(text, cuts);
  yield;
  const byName = new Map(text.nodes.map((node) => [node.name, node]));
  const last = Math.max(...[...place.values()].map((p) => (typeof p === 'number' ? p : 0)));
  const groups: NodeText[][] = Array.from({ length: last + 1 }, () => []);
  for (const node of text.nodes) {
    const at = place.get(node.name)!;
    if (typeof at === 'number') groups[at]!.push(node);
  }
  // what each function must return: values that the outside, a cut or another function reads
  const wanted: Set<string>[] = groups.map(() => new Set());
  const need = (ref: string, by: Place): void => {
    const at = place.get(producer(ref));
    if (typeof at === 'number' && at !== by) wanted[at]!.add(ref);
  };
  for (const node of text.nodes) for (const ref of node.inputs) if (!isControl(ref)) need(ref, place.get(node.name)!);
  for (const ref of Object.values(text.returns)) need(ref, 'outer');

  const outside = new Map<string, string>();
  const translate = (ref: string): string => outside.get(ref) ?? ref;
  const functions: FunctionText[] = [];
  const calls: NodeText[] = [];
  for (const [i, group] of groups.entries()) {
    if (wanted[i]!.size === 0) continue;
    yield;
    const constants = constantsFor(
      group.flatMap((node) => node.inputs),
      byName,
      place,
    );
    const results = [...wanted[i]!];
    const { fn, inputs } = outlinedText(ordered([...constants, ...group], results), results, types);
    functions.push(clusters ? fn : { ...fn, name: `${fn.name}_part`, attrs: { _noinline: attr.bool(true) } });
    calls.push(callNode(`${OUTLINED}${i}`, functions[functions.length - 1]!, inputs.map(translate), clusters));
    results.forEach((ref, k) => outside.set(ref, `${OUTLINED}${i}:output:${k}`));
  }
  const own = text.nodes.filter((node) => place.get(node.name) === 'outer');
  const direct = [...own.flatMap((node) => node.inputs), ...Object.values(text.returns)];
  const nodes = [...constantsFor(direct, byName, place), ...own, ...calls].map((node) => ({
    ...node,
    inputs: node.inputs.map(translate),
  }));
  const returns = Object.fromEntries(Object.entries(text.returns).map(([name, ref]) => [name, translate(ref)]));
  return { outer: { ...text, nodes, returns }, functions, clusters };
}
