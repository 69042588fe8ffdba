/**
 * The part of a program's outer graph that fills, clears and reads its variables. TensorFlow spends a good part of a second on
 * every new combination of feeds and fetches of a large graph (it prunes and optimises the graph anew), so there is one for
 * filling, one for clearing and one for reading per element type, whatever the number of variables, and few nodes for each of
 * them: the handle of the variable is chosen by a bit that is fed, through Switch and Merge, and its shape is fed. Data travels as
 * bytes, which suits every element type. On a CPU, where a start is short enough to notice, filling is the same for all types.
 */
import { dtypeBytes, dtypeNumber, DT_RESOURCE } from './dtypes.js';
import { nodeName, storedDtype } from './function.js';
import { attr, type Attrs, type NodeText } from './graphdef.js';
import type { Dtype, VariableDtype, VariableSpec } from './types.js';

/** Names of what is fed and fetched for variables of a type. */
export const STORAGE = {
  set: (dtype: VariableDtype) => ({
    feeds: 'storage_mask:0,storage_shape:0,storage_bytes:0',
    fetch: `set_${dtype}_done:0`,
  }),
  /** Any type: which one is fed as a mask over the types of all variables. Only on a CPU. */
  setAny: { feeds: 'storage_mask:0,storage_types:0,storage_shape:0,storage_bytes:0', fetch: 'set_done:0' },
  clear: (dtype: VariableDtype) => ({ feeds: 'storage_mask:0,storage_shape:0', fetch: `clear_${dtype}_done:0` }),
  read: (dtype: VariableDtype) => ({
    feeds: 'storage_mask:0,storage_shape:0,storage_rest:0',
    fetch: `get_${dtype}_words:0`,
  }),
};

/** Dimensions to feed as `storage_shape` when bytes are set. */
export function byteShape(spec: VariableSpec): number[] {
  const width = dtypeBytes(spec.dtype);
  return width > 1 ? [...spec.shape, width] : [...spec.shape];
}

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

  placeholder(name: string, dtype: number, shape: readonly number[]): string {
    return this.add(name, 'Placeholder', [], { dtype: attr.type(dtype), shape: attr.shape(shape) }, HOST);
  }

  reshape(name: string, dtype: Dtype, value: string, dims: string): string {
    return this.add(name, 'Reshape', [value, dims], { T: type(dtype), Tshape: type('int32') }, HOST);
  }

  bitcast(name: string, from: Dtype, to: Dtype, value: string): string {
    return this.add(name, 'Bitcast', [value], { T: type(from), type: type(to) }, HOST);
  }

  cast(name: string, from: Dtype, to: Dtype, value: string): string {
    return this.add(name, 'Cast', [value], { SrcT: type(from), DstT: type(to), Truncate: attr.bool(false) }, HOST);
  }

  /** A value where a bool scalar is true, and nothing where it is false. */
  gate(name: string, dtype: number, value: string, open: string): string {
    return `${this.add(name, 'Switch', [value, open], { T: attr.type(dtype) })}:1`;
  }

  /** Assigns to the chosen handle; a constant named `${name}_done` exists once that is done. */
  assign(name: string, dtype: Dtype, value: string, handle = 'storage_handle'): void {
    this.add(`${name}_to`, 'AssignVariableOp', [handle, value], { dtype: type(dtype) });
    this.constant(`${name}_done`, 'bool', [], Uint8Array.of(1), [`^${name}_to`]);
  }
}

/**
 * @param copies whether fed bytes must be copied, lest the variable be the fed JavaScript array itself
 * @param open bool scalar without which nothing happens, if any
 */
function setNodes(nodes: Nodes, dtype: VariableDtype, copies: boolean, open: string | null): void {
  const stored = storedDtype(dtype);
  const n = `set_${dtype}`;
  let value = 'storage_bytes';
  if (open !== null) value = nodes.gate(`${n}_given`, dtypeNumber('uint8'), value, open);
  if (copies && stored === dtype) value = nodes.add(`${n}_copy`, 'DeepCopy', [value], { T: type('uint8') }, HOST);
  value = nodes.reshape(`${n}_form`, 'uint8', value, 'storage_shape');
  if (dtypeBytes(dtype) > 1) value = nodes.bitcast(`${n}_bits`, 'uint8', dtype, value);
  if (stored !== dtype) value = nodes.cast(`${n}_wide`, dtype, stored, value);
  const handle = open === null ? undefined : nodes.gate(`${n}_handle`, DT_RESOURCE, 'storage_handle', open);
  nodes.assign(n, stored, value, handle);
}

function clearNodes(nodes: Nodes, dtype: VariableDtype): void {
  const stored = storedDtype(dtype);
  const n = `clear_${dtype}`;
  const zero = nodes.constant(`${n}_zero`, stored, [], new Uint8Array(dtypeBytes(stored)));
  nodes.assign(
    n,
    stored,
    nodes.add(n, 'Fill', ['storage_shape', zero], { T: type(stored), index_type: type('int32') }),
  );
}

/** The variable as int32 words, zeros after its last byte. */
function readNodes(nodes: Nodes, dtype: VariableDtype): void {
  const stored = storedDtype(dtype);
  const n = `get_${dtype}`;
  let value = nodes.add(n, 'ReadVariableOp', ['storage_handle'], { dtype: type(stored) });
  if (stored !== dtype) value = nodes.cast(`${n}_narrow`, stored, dtype, value);
  if (dtype !== 'uint8') value = nodes.bitcast(`${n}_bytes`, dtype, 'uint8', value);
  // dimensions that are fed: for constants, Grappler would take the shape of the first variable for that of all, and drop the reshape
  value = nodes.reshape(`${n}_flat`, 'uint8', value, 'storage_shape');
  const zero = nodes.constant(`${n}_zero`, 'uint8', [], Uint8Array.of(0));
  const rest = nodes.add(
    `${n}_rest`,
    'Fill',
    ['storage_rest', zero],
    { T: type('uint8'), index_type: type('int32') },
    HOST,
  );
  const axis = nodes.constant(`${n}_axis`, 'int32', [], Int32Array.of(0));
  const attrs = { N: attr.int(2), T: type('uint8'), Tidx: type('int32') };
  value = nodes.add(`${n}_full`, 'ConcatV2', [value, rest, axis], attrs, HOST);
  value = nodes.reshape(`${n}_quads`, 'uint8', value, nodes.ints(`${n}_pairs`, [-1, 4]));
  nodes.bitcast(`${n}_words`, 'uint8', 'int32', value);
}

/** Element types of the variables, in the order of `storage_types`. */
export function storageTypes(variables: ReadonlyMap<string, VariableSpec>): VariableDtype[] {
  return [...new Set([...variables.values()].map((spec) => spec.dtype))];
}

/** The variables' handles, and the nodes that act on the one that is chosen. @param onCpu where fed bytes are copied, and filled for all types alike */
export function storageNodes(variables: ReadonlyMap<string, VariableSpec>, onCpu: boolean): NodeText[] {
  const nodes = new Nodes();
  if (variables.size === 0) return [];
  nodes.placeholder('storage_mask', dtypeNumber('bool'), [variables.size]);
  nodes.placeholder('storage_shape', dtypeNumber('int32'), [-1]);
  nodes.placeholder('storage_bytes', dtypeNumber('uint8'), [-1]);
  nodes.placeholder('storage_rest', dtypeNumber('int32'), [1]);
  const count = attr.int(variables.size);
  nodes.add('storage_bits', 'Unpack', ['storage_mask'], { T: type('bool'), num: count, axis: attr.int(0) }, HOST);
  const chosen = [...variables].map(([name, spec], k) => {
    const n = nodeName(name);
    const attrs = {
      dtype: type(storedDtype(spec.dtype)),
      shape: attr.shape(spec.shape),
      shared_name: attr.string(n),
      container: attr.string(''),
    };
    nodes.add(`var_${n}`, 'VarHandleOp', [], attrs);
    return `${nodes.add(`pick_${n}`, 'Switch', [`var_${n}`, `storage_bits:${k}`], { T: attr.type(DT_RESOURCE) })}:1`;
  });
  nodes.add('storage_handle', 'Merge', chosen, { T: attr.type(DT_RESOURCE), N: count });
  const types = storageTypes(variables);
  if (onCpu) {
    nodes.placeholder('storage_types', dtypeNumber('bool'), [types.length]);
    const attrs = { T: type('bool'), num: attr.int(types.length), axis: attr.int(0) };
    nodes.add('storage_type_bits', 'Unpack', ['storage_types'], attrs, HOST);
  }
  types.forEach((dtype, k) => {
    setNodes(nodes, dtype, onCpu, onCpu ? `storage_type_bits:${k}` : null);
    clearNodes(nodes, dtype);
    readNodes(nodes, dtype);
  });
  if (onCpu) {
    const done = types.map((dtype) => `set_${dtype}_done`);
    nodes.add('set_done', 'Merge', done, { T: type('bool'), N: attr.int(types.length) });
  }
  return nodes.list;
}
