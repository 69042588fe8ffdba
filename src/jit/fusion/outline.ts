/**
 * A function in pieces. Pieces of the same text, as the layers of a model have them, are one function: TensorFlow, which looks at
 * all functions of a graph again and again, has fewer to look at, and converts each for XLA once.
 *
 * At borders the pieces are functions that the whole, one program of XLA, calls; or, in layered functions, programs of their own, which
 * XLA compiles once for all layers. At kernels, nodes that TensorFlow runs itself, every piece is a program of XLA. Reason:
 * TensorFlow's own matrix products may be faster than XLA's (on a CPU oneDNN multiplies bfloat16 by instructions that XLA does not use).
 */
import { createHash } from 'node:crypto';
import type { FunctionGraph } from '../trace/graph.js';
import { attr, type Argument, type Attr, type FunctionText, type NodeText } from '../trace/graphdef.js';

/** In place of a piece's number: used by assignments alone. */
const AT_END = -1;

const isControl = (ref: string): boolean => ref.startsWith('^');
function producer(ref: string): string {
  const colon = ref.indexOf(':');
  return ref.slice(isControl(ref) ? 1 : 0, colon < 0 ? undefined : colon);
}

/** Where each node runs: 'outer' for variables and cuts, 'copied' for constants, else the number of its piece. */
type Place = number | 'outer' | 'copied';

/**
 * Pieces are numbered by how many cuts come one after another before them. What depends on no cut would all be computed at
 * the start; a node that a single later piece uses (what is made of a layer's weights) moves there, and a node that gathers
 * values of several pieces to be assigned moves to the last one: so the pieces of all layers are the same, and no dequantised
 * matrix waits for its use.
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
  /** The one piece that a value is used in, or by a cut at its end; AT_END if only assigned; null for several. */
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
    const piece = op === 'AssignVariableOp' ? AT_END : at === 'outer' ? before : at;
    for (const input of node.inputs.map(producer))
      usedIn.set(input, usedIn.has(input) && usedIn.get(input) !== piece ? null : piece);
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
    const name = stack.at(-1)!;
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

/** Text of a piece, with names that depend on nothing but its contents. */
function pieceText(
  nodes: readonly NodeText[],
  wanted: readonly string[],
  types: ReadonlyMap<string, number>,
): { piece: FunctionText; inputs: string[] } {
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
  return { piece: { name: `piece_${hash.slice(0, 16)}`, inputs: signature, ...contents }, inputs };
}

/** JSON has neither bytes nor infinities. */
function bytesAsText(_key: string, value: unknown): unknown {
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
  return value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value;
}

/** @param cluster whether the piece is a program of XLA, and not part of one */
function callNode(name: string, piece: FunctionText, inputs: readonly string[], cluster: boolean): NodeText {
  const attrs: Record<string, Attr> = {
    Tin: attr.types(piece.inputs.map(([, dtype]) => dtype)),
    Tout: attr.types(piece.outputs.map(([, dtype]) => dtype)),
    f: attr.func(piece.name),
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

/** A function taken apart. */
export interface Apart {
  /** Calls the pieces. */
  outer: FunctionText;
  pieces: FunctionText[];
  /** Whether the pieces are programs of XLA, and the outer function is none. */
  clusters: boolean;
}

/**
 * Takes a function apart at its kernels, or at its borders if it has no kernels.
 * @param graph what the text was made of
 * @param layered see DefineOptions
 * @returns null when there is no cut, or when the function hands variables to functions that it calls
 */
export function takeApart(text: FunctionText, graph: FunctionGraph, layered: boolean): Apart | null {
  const { types } = graph;
  const [kernels, borders] = [graph.cuts('kernel'), graph.cuts('border')];
  const present = new Set(text.nodes.map((node) => node.name));
  const some = [...kernels].some((name) => present.has(name));
  const clusters = some || layered;
  const cuts = some ? kernels : borders;
  const handles = new Set(text.inputs.map(([name]) => name).filter((name) => name.startsWith('h_')));
  const takesHandle = (node: NodeText): boolean => node.inputs.some((ref) => handles.has(ref));
  const access = new Set(['ReadVariableOp', 'AssignVariableOp']);
  if (![...cuts].some((name) => present.has(name))) return null;
  if (text.nodes.some((node) => takesHandle(node) && !access.has(node.op))) return null;

  const place = places(text, cuts);
  const byName = new Map(text.nodes.map((node) => [node.name, node]));
  const last = Math.max(...[...place.values()].map((p) => (typeof p === 'number' ? p : 0)));
  const groups: NodeText[][] = Array.from({ length: last + 1 }, () => []);
  for (const node of text.nodes) {
    const at = place.get(node.name)!;
    if (typeof at === 'number') groups[at]!.push(node);
  }
  // what each piece must hand on: values that the outside, a cut or another piece reads
  const wanted: Set<string>[] = groups.map(() => new Set());
  const need = (ref: string, by: Place): void => {
    const at = place.get(producer(ref));
    if (typeof at === 'number' && at !== by) wanted[at]!.add(ref);
  };
  for (const node of text.nodes) for (const ref of node.inputs) if (!isControl(ref)) need(ref, place.get(node.name)!);
  for (const ref of Object.values(text.returns)) need(ref, 'outer');

  const outside = new Map<string, string>();
  const translate = (ref: string): string => outside.get(ref) ?? ref;
  const pieces: FunctionText[] = [];
  const calls: NodeText[] = [];
  groups.forEach((group, i) => {
    if (wanted[i]!.size === 0) return;
    const constants = constantsFor(
      group.flatMap((node) => node.inputs),
      byName,
      place,
    );
    const results = [...wanted[i]!];
    const { piece, inputs } = pieceText(ordered([...constants, ...group], results), results, types);
    pieces.push(clusters ? piece : { ...piece, name: `${piece.name}_part`, attrs: { _noinline: attr.bool(true) } });
    calls.push(callNode(`piece_${i}`, pieces.at(-1)!, inputs.map(translate), clusters));
    results.forEach((ref, k) => outside.set(ref, `piece_${i}:output:${k}`));
  });
  const own = text.nodes.filter((node) => place.get(node.name) === 'outer');
  const direct = [...own.flatMap((node) => node.inputs), ...Object.values(text.returns)];
  const nodes = [...constantsFor(direct, byName, place), ...own, ...calls].map((node) => ({
    ...node,
    inputs: node.inputs.map(translate),
  }));
  const returns = Object.fromEntries(Object.entries(text.returns).map(([name, ref]) => [name, translate(ref)]));
  return { outer: { ...text, nodes, returns }, pieces, clusters };
}
