/**
 * The part of a program's outer graph that fills, clears and reads its variables. TensorFlow spends a fraction of a
 * second on every new combination of feeds and fetches (it prunes and optimises the graph anew), so there is one for
 * filling, one for clearing and one for reading, whatever the number of variables: the variable is chosen by an index
 * that is fed, through Switch and Merge. Data travels as bytes, which suits every element type.
 */
import { dtypeBytes, dtypeNumber, DT_RESOURCE, sizeOf } from './dtypes.js';
import { nodeName, storedDtype } from './function.js';
import { attr, type Attrs, type NodeText } from './graphdef.js';
import type { Dtype, VariableSpec } from './types.js';

/** Names of what is fed and fetched. */
export const STORAGE = {
  set: { feeds: 'set_index:0,set_bytes:0', fetch: 'set_done:0' },
  clear: { feeds: 'clear_mask:0', fetch: 'clear_done:0' },
  read: { feeds: 'get_index:0', fetch: 'get_words:0' },
};

const type = (dtype: Dtype): Attrs[string] => attr.type(dtypeNumber(dtype));
/** Bytes are taken apart on the host; a GPU gets whole tensors of their own type. */
const HOST = '/device:CPU:0';

class Nodes {
  readonly list: NodeText[] = [];

  add(name: string, op: string, inputs: readonly string[], attrs: Attrs, device = ''): string {
    this.list.push({ name, op, inputs, attrs, device });
    return name;
  }

  constant(
    name: string,
    dtype: Dtype,
    shape: readonly number[],
    data: ArrayBufferView,
    after: readonly string[] = [],
  ): string {
    const content = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return this.add(name, 'Const', after, {
      dtype: type(dtype),
      value: attr.tensor(dtypeNumber(dtype), shape, content),
    });
  }

  ints(name: string, values: readonly number[]): string {
    return this.constant(name, 'int32', [values.length], Int32Array.from(values));
  }

  placeholder(name: string, dtype: Dtype, shape: readonly number[]): string {
    return this.add(name, 'Placeholder', [], { dtype: type(dtype), shape: attr.shape(shape) }, HOST);
  }

  reshape(name: string, dtype: Dtype, value: string, shape: readonly number[]): string {
    const dims = this.ints(`${name}_shape`, shape);
    return this.add(name, 'Reshape', [value, dims], { T: type(dtype), Tshape: type('int32') }, HOST);
  }

  bitcast(name: string, from: Dtype, to: Dtype, value: string): string {
    return this.add(name, 'Bitcast', [value], { T: type(from), type: type(to) }, HOST);
  }

  cast(name: string, from: Dtype, to: Dtype, value: string): string {
    return this.add(name, 'Cast', [value], { SrcT: type(from), DstT: type(to), Truncate: attr.bool(false) }, HOST);
  }

  /** `value` where `index` equals k, dead elsewhere. */
  only(name: string, T: Attrs[string], value: string, index: string, k: number): string {
    const number = this.constant(`${name}_k`, 'int32', [], Int32Array.of(k));
    const same = this.add(`${name}_is`, 'Equal', [index, number], { T: type('int32') }, HOST);
    return `${this.add(name, 'Switch', [value, same], { T })}:1`;
  }

  /** Assigns, and gives the name of a constant that exists once that is done. */
  assign(name: string, dtype: Dtype, variable: string, value: string): string {
    this.add(name, 'AssignVariableOp', [`var_${variable}`, value], { dtype: type(dtype) });
    return this.constant(`${name}_done`, 'bool', [], Uint8Array.of(1), [`^${name}`]);
  }

  merge(name: string, dtype: Dtype, inputs: readonly string[]): string {
    return this.add(name, 'Merge', inputs, { T: type(dtype), N: attr.int(inputs.length) }, HOST);
  }
}

/** @param copies whether fed bytes must be copied, lest the variable be the fed JavaScript array itself */
function setNodes(nodes: Nodes, n: string, k: number, spec: VariableSpec, copies: boolean): string {
  const stored = storedDtype(spec.dtype);
  const width = dtypeBytes(spec.dtype);
  let value = nodes.only(`set_${n}`, type('uint8'), 'set_bytes', 'set_index', k);
  if (copies && stored === spec.dtype)
    value = nodes.add(`set_${n}_copy`, 'DeepCopy', [value], { T: type('uint8') }, HOST);
  value = nodes.reshape(`set_${n}_form`, 'uint8', value, width > 1 ? [...spec.shape, width] : spec.shape);
  if (width > 1) value = nodes.bitcast(`set_${n}_bits`, 'uint8', spec.dtype, value);
  if (stored !== spec.dtype) value = nodes.cast(`set_${n}_wide`, spec.dtype, stored, value);
  return nodes.assign(`set_${n}_to`, stored, n, value);
}

function clearNodes(nodes: Nodes, n: string, k: number, spec: VariableSpec): string {
  const stored = storedDtype(spec.dtype);
  const begin = nodes.ints(`clear_${n}_at`, [k]);
  const bit = nodes.add(
    `clear_${n}_bit`,
    'Slice',
    ['clear_mask', begin, nodes.ints(`clear_${n}_one`, [1])],
    { T: type('bool'), Index: type('int32') },
    HOST,
  );
  const on = nodes.reshape(`clear_${n}_on`, 'bool', bit, []);
  const zero = nodes.constant(`clear_${n}_zero`, stored, [], new Uint8Array(dtypeBytes(stored)));
  const gated = `${nodes.add(`clear_${n}`, 'Switch', [zero, on], { T: type(stored) })}:1`;
  const dims = nodes.ints(`clear_${n}_shape`, spec.shape);
  const zeros = nodes.add(`clear_${n}_zeros`, 'Fill', [dims, gated], { T: type(stored), index_type: type('int32') });
  return nodes.assign(`clear_${n}_to`, stored, n, zeros);
}

/** The variable as int32 words, zeros after its last byte. */
function readNodes(nodes: Nodes, n: string, k: number, spec: VariableSpec): string {
  const stored = storedDtype(spec.dtype);
  const handle = nodes.only(`get_${n}`, attr.type(DT_RESOURCE), `var_${n}`, 'get_index', k);
  let value = nodes.add(`get_${n}_value`, 'ReadVariableOp', [handle], { dtype: type(stored) });
  if (stored !== spec.dtype) value = nodes.cast(`get_${n}_narrow`, stored, spec.dtype, value);
  const bytes = sizeOf(spec.shape) * dtypeBytes(spec.dtype);
  if (spec.dtype !== 'uint8') value = nodes.bitcast(`get_${n}_bytes`, spec.dtype, 'uint8', value);
  value = nodes.reshape(`get_${n}_flat`, 'uint8', value, [bytes]);
  const rest = (4 - (bytes % 4)) % 4;
  if (rest > 0) {
    const filler = nodes.constant(`get_${n}_rest`, 'uint8', [rest], new Uint8Array(rest));
    const axis = nodes.constant(`get_${n}_axis`, 'int32', [], Int32Array.of(0));
    value = nodes.add(
      `get_${n}_full`,
      'ConcatV2',
      [value, filler, axis],
      { N: attr.int(2), T: type('uint8'), Tidx: type('int32') },
      HOST,
    );
  }
  value = nodes.reshape(`get_${n}_quads`, 'uint8', value, [(bytes + rest) / 4, 4]);
  return nodes.bitcast(`get_${n}_words`, 'uint8', 'int32', value);
}

/** All nodes for all variables, whose numbers are their positions. */
export function storageNodes(variables: ReadonlyMap<string, VariableSpec>, copies: boolean): NodeText[] {
  const nodes = new Nodes();
  if (variables.size === 0) return [];
  nodes.placeholder('set_index', 'int32', []);
  nodes.placeholder('set_bytes', 'uint8', [-1]);
  nodes.placeholder('get_index', 'int32', []);
  nodes.placeholder('clear_mask', 'bool', [variables.size]);
  const [set, cleared, words]: [string[], string[], string[]] = [[], [], []];
  [...variables].forEach(([name, spec], k) => {
    const n = nodeName(name);
    const attrs = {
      dtype: type(storedDtype(spec.dtype)),
      shape: attr.shape(spec.shape),
      shared_name: attr.string(n),
      container: attr.string(''),
    };
    nodes.add(`var_${n}`, 'VarHandleOp', [], attrs);
    set.push(setNodes(nodes, n, k, spec, copies));
    cleared.push(clearNodes(nodes, n, k, spec));
    words.push(readNodes(nodes, n, k, spec));
  });
  nodes.merge('set_done', 'bool', set);
  // At least one is cleared, so that the merge is alive.
  nodes.merge('clear_done', 'bool', cleared);
  nodes.merge('get_words', 'int32', words);
  return nodes.list;
}
