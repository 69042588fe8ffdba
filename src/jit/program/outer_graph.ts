/** The outer graph around traced functions: placeholders, variables, calls, and what fills and reads variables. */
import type { Pieces } from '../../base/pieces.js';
import { dtypeNumber, DT_RESOURCE } from '../../runtime/data_types.js';
import { attr, type FunctionText, graphDef, type NodeText } from '../trace/graphdef.js';
import type { Dtype, VariableSpec } from '../types.js';
import { nodeName, type Traced } from './function.js';
import { storageNodes } from './variable_io.js';

const number = dtypeNumber;
function constNode(
  name: string,
  dtype: Dtype,
  shape: readonly number[],
  data: ArrayBufferView,
  after: string[] = [],
): NodeText {
  const content = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return {
    name,
    op: 'Const',
    inputs: after.map((n) => `^${n}`),
    attrs: { dtype: attr.type(number(dtype)), value: attr.tensor(number(dtype), shape, content) },
  };
}

/** A ConfigProto: graph_options { rewrite_options { disable_meta_optimizer: true } }. */
export const NO_REWRITES = Uint8Array.of(0x52, 5, 0x52, 3, 0x98, 1, 1);

/**
 * A variable of TensorFlow's older kind that nobody reads or writes. Before a graph is run, and each function that calls programs of XLA, TensorFlow
 * asks which nodes have to do with such variables, and builds the body of every function that is called, for each call anew, to look into
 * it: the layers of a model, twice in two graphs. What comes after such a variable has to do with it and is not looked into. Programs of XLA that are marked as
 * such (`_XlaMustCompile`) do not heed the answer.
 */
const OLD_VARIABLE: NodeText = {
  name: 'old_variable',
  op: 'VariableV2',
  inputs: [],
  attrs: {
    shape: attr.shape([]),
    dtype: attr.type(number('bool')),
    container: attr.string(''),
    shared_name: attr.string('old_variable'),
  },
  device: '/device:CPU:0',
};

/** The nodes, with those that call functions after OLD_VARIABLE. */
function callsAfterIt(nodes: readonly NodeText[]): NodeText[] {
  const calls = (node: NodeText): boolean => Object.values(node.attrs).some(({ kind }) => kind === 'func');
  const after = `^${OLD_VARIABLE.name}`;
  return nodes.map((node) => (calls(node) ? { ...node, inputs: [...node.inputs, after] } : node));
}

const withOldVariable = (nodes: readonly NodeText[]): NodeText[] => [OLD_VARIABLE, ...nodes];

function callNodes(fn: Traced, rewrites: boolean): NodeText[] {
  const name = `call_${nodeName(fn.name)}`;
  const inputs = Object.entries(fn.inputs).map(([input, spec]): NodeText => {
    const attrs = { dtype: attr.type(number(spec.dtype)), shape: attr.shape(spec.shape) };
    return { name: `${name}_${nodeName(input)}`, op: 'Placeholder', inputs: [], attrs };
  });
  const outputs = Object.values(fn.outputs);
  const attrs = {
    Tin: attr.types([...Object.values(fn.inputs).map((s) => number(s.dtype)), ...fn.variables.map(() => DT_RESOURCE)]),
    Tout: attr.types(outputs.map((s) => number(s.dtype))),
    f: attr.func(fn.text.name),
    // what calls programs of XLA is a function that TensorFlow would rewrite at its first call
    config_proto: attr.string(rewrites ? '' : NO_REWRITES),
    executor_type: attr.string(''),
    ...(fn.xla && !fn.clusters ? { _XlaMustCompile: attr.bool(true) } : {}),
  };
  const call: NodeText = {
    name,
    op: 'StatefulPartitionedCall',
    inputs: [...inputs.map((i) => i.name), ...fn.variables.map((v) => `var_${v}`)],
    attrs,
  };
  // A function without outputs still needs something to fetch.
  const done = constNode(`${name}_done`, 'bool', [], Uint8Array.of(1), [name]);
  return outputs.length > 0 ? [...inputs, call] : [...inputs, call, done];
}

/** Nodes of a function, and of those that it calls, up to which it comes with the graph and not when it is called. */
const FEW = 20;

export interface GraphOptions {
  /** Whether TensorFlow rewrites functions that are not one program of XLA. */
  rewrites: boolean;
  /** Whether TensorFlow is spared to look into what XLA compiles (OLD_VARIABLE), and for each variable at all others. For CPUs. */
  spares: boolean;
  /** Whether large functions come with the graph, too. Default: where nothing is spared. */
  whole?: boolean;
}

/** A graph in parts, each of them the bytes of a GraphDef. */
export interface OuterGraph {
  /** The variables, what fills and reads them, and small functions. */
  readonly graph: Uint8Array;
  /** By the names of functions: what a session takes in before their first call. */
  readonly parts: Readonly<Record<string, Uint8Array>>;
}

/**
 * A graph over variables and functions. TensorFlow looks at all functions that a graph has when it takes it in, for half of that time: those that are large
 * are parts of their own, unless the graph is wanted whole.
 */
export function* outerGraph(
  variables: ReadonlyMap<string, VariableSpec>,
  functions: readonly Traced[],
  { rewrites, spares, whole = !spares }: GraphOptions,
): Pieces<OuterGraph> {
  const calls = (fns: readonly Traced[]): NodeText[] => {
    const nodes = fns.flatMap((fn) => callNodes(fn, rewrites));
    return spares ? callsAfterIt(nodes) : nodes;
  };
  const text = (fn: Traced): FunctionText =>
    fn.clusters && spares ? { ...fn.text, nodes: withOldVariable(callsAfterIt(fn.text.nodes)) } : fn.text;
  // Functions share small ones, so each name counts once.
  const library = (fns: readonly Traced[]): FunctionText[] => [
    ...new Map(fns.flatMap((fn) => [...fn.library, text(fn)]).map((one) => [one.name, one])).values(),
  ];
  const size = (fn: Traced): number => library([fn]).reduce((sum, one) => sum + one.nodes.length, 0);
  const early = functions.filter((fn) => whole || size(fn) <= FEW);
  const nodes = [...storageNodes(variables, spares), ...calls(early)];
  yield;
  const graph = yield* graphDef(spares ? withOldVariable(nodes) : nodes, library(early));
  const parts: Record<string, Uint8Array> = {};
  for (const fn of functions) if (!early.includes(fn)) parts[fn.name] = yield* graphDef(calls([fn]), library([fn]));
  return { graph, parts };
}
