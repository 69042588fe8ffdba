/**
 * The part of a program's outer graph that fills, clears and reads its variables. TensorFlow spends a good part of a second on
 * every new combination of feeds and fetches of a large graph (it prunes and optimises the graph anew), so there is one for
 * filling, with bytes or zeros, and one for reading per element type, whatever the number of variables, and few nodes for each of
 * them: the handle of the variable is chosen by its place, which is fed, through Switch and Merge, and its shape is fed. Places are those in
 * groups, about as many groups as each has members: what chooses is on the host, and each of its bits costs microseconds to bring to a GPU.
 * Data travels as int32 words, which suits every element type, and which tfjs leaves on the host: of all others it puts a copy on the GPU,
 * to be fetched back.
 */
import { dtypeBytes, dtypeNumber, DT_RESOURCE, DT_STRING } from '../../runtime/data_types.js';
import { nodeName, storedDtype } from './function.js';
import { attr, type Attrs, type NodeText } from '../trace/graphdef.js';
import type { FeedPlace } from '../../runtime/native_session.js';
import type { Dtype, VariableDtype, VariableSpec } from '../types.js';

/** Shapes of the placeholders that are fed. */
const FED = {
  storage_group: [],
  storage_member: [],
  storage_kind: [],
  storage_dims: [-1],
  storage_shape: [-1],
  storage_words: [-1],
  storage_size: [1],
  storage_rest: [1],
} as const;

const places = (...names: (keyof typeof FED)[]): FeedPlace[] =>
  names.map((name) => [`${name}:0`, dtypeNumber('int32'), FED[name]]);

/** What is fed and fetched for variables of a type. */
export const STORAGE = {
  /** Bytes, or zeros, into a variable of any type: see fillKind. */
  fill: (): Transfer => ({
    feeds: places(
      ...(['storage_group', 'storage_member', 'storage_kind'] as const),
      ...(['storage_dims', 'storage_shape', 'storage_words', 'storage_size'] as const),
    ),
    fetch: 'filled:0',
  }),
  read: (dtype: VariableDtype): Transfer => ({
    feeds: places('storage_group', 'storage_member', 'storage_shape', 'storage_rest'),
    fetch: `get_${dtype}_words:0`,
  }),
  /** The tensor of a variable as it is stored, and such a tensor into a variable: on a CPU the same memory. */
  lend: (dtype: VariableDtype): Transfer => ({
    feeds: places('storage_group', 'storage_member'),
    fetch: `get_${dtype}:0`,
  }),
  /** A second owner of a variable's tensor, where it lies: fetched is its name, to be fed to `letGo`. */
  hold: (dtype: VariableDtype): Transfer => ({
    feeds: places('storage_group', 'storage_member'),
    fetch: `hold_${dtype}:0`,
  }),
  letGo: (): Transfer => ({ feeds: [['let_go_held:0', DT_STRING, []]], fetch: 'let_go_done:0' }),
  borrow: (dtype: VariableDtype): Transfer => ({
    feeds: [
      ...places('storage_group', 'storage_member'),
      [`borrow_${dtype}_given:0`, dtypeNumber(storedDtype(dtype)), []],
    ],
    fetch: `borrow_${dtype}_done:0`,
  }),
};

/** A call of the storage's nodes. */
export interface Transfer {
  feeds: readonly FeedPlace[];
  fetch: string;
}

/** Variables of a group, but for the last one. @param count of all variables */
const membersOf = (count: number): number => Math.max(1, Math.ceil(Math.sqrt(count)));

/** What to feed as `storage_group` and `storage_member`. @param k number of the variable among `count` */
export function placeOf(k: number, count: number): readonly [group: number, member: number] {
  const members = membersOf(count);
  return [Math.floor(k / members), k % members];
}

/** What to feed as `storage_kind`. @param k number of the variable's type in storageTypes() */
export function fillKind(k: number, zeros: boolean): number {
  return 2 * k + Number(zeros);
}

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

  /** Scalars of bool, one for each number below `count`: whether it is the one in `chosen`. @returns their name without the number */
  bits(name: string, chosen: string, count: number): string {
    const all = this.ints(
      `${name}_all`,
      Array.from({ length: count }, (_, i) => i),
    );
    const attrs = { T: type('int32'), incompatible_shape_error: attr.bool(true) };
    const equal = this.add(`${name}_equal`, 'Equal', [all, chosen], attrs, HOST);
    return this.add(name, 'Unpack', [equal], { T: type('bool'), num: attr.int(count), axis: attr.int(0) }, HOST);
  }

  /** What a node comes after, as control inputs, to be there only where a bit is true. @param bits see bits() */
  controls(bits: string, count: number): string[] {
    return Array.from({ length: count }, (_, i) => {
      const open = this.gate(`${bits}_open_${i}`, dtypeNumber('bool'), `${bits}:${i}`, `${bits}:${i}`);
      // what comes after a Switch comes after both of its ends
      return `^${this.add(`${bits}_gate_${i}`, 'Identity', [open], { T: type('bool') }, HOST)}`;
    });
  }

  merge(name: string, dtype: number, values: readonly string[]): string {
    return this.add(name, 'Merge', values, { T: attr.type(dtype), N: attr.int(values.length) });
  }

  /** Assigns to the chosen handle; a constant named `${name}_done` exists once that is done. */
  assign(name: string, dtype: Dtype, value: string, handle: string): void {
    this.add(`${name}_to`, 'AssignVariableOp', [handle, value], { dtype: type(dtype) });
    this.constant(`${name}_done`, 'bool', [], Uint8Array.of(1), [`^${name}_to`]);
  }
}

/** Fills a variable of a type with bytes or with zeros, whichever bit is true. On a CPU it keeps what was fed, which is the session's own. */
function fillNodes(nodes: Nodes, dtype: VariableDtype, bits: { set: string; clear: string }): void {
  const stored = storedDtype(dtype);
  const n = `fill_${dtype}`;
  let value = nodes.gate(`${n}_given`, dtypeNumber('int32'), 'storage_words', bits.set);
  value = nodes.bitcast(`${n}_quads`, 'int32', 'uint8', value);
  value = nodes.reshape(`${n}_padded`, 'uint8', value, 'storage_flat');
  value = nodes.add(
    `${n}_bytes`,
    'Slice',
    [value, 'storage_begin', 'storage_size'],
    { T: type('uint8'), Index: type('int32') },
    HOST,
  );
  value = nodes.reshape(`${n}_form`, 'uint8', value, 'storage_shape');
  if (dtypeBytes(dtype) > 1) value = nodes.bitcast(`${n}_bits`, 'uint8', dtype, value);
  if (stored !== dtype) value = nodes.cast(`${n}_wide`, dtype, stored, value);
  const zero = nodes.constant(`${n}_zero`, stored, [], new Uint8Array(dtypeBytes(stored)));
  const dims = nodes.gate(`${n}_dims`, dtypeNumber('int32'), 'storage_dims', bits.clear);
  const zeros = nodes.add(`${n}_zeros`, 'Fill', [dims, zero], { T: type(stored), index_type: type('int32') });
  const either = nodes.merge(`${n}_either`, dtypeNumber(stored), [value, zeros]);
  const handles = [bits.set, bits.clear].map((bit, i) =>
    nodes.gate(`${n}_handle_${i}`, DT_RESOURCE, 'storage_handle', bit),
  );
  nodes.assign(n, stored, either, nodes.merge(`${n}_handle`, DT_RESOURCE, handles));
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

/** Makes the session itself an owner of the variable's tensor, on its device. */
function holdNodes(nodes: Nodes, dtype: VariableDtype): void {
  nodes.add(`hold_${dtype}`, 'GetSessionHandle', [`get_${dtype}`], { T: type(storedDtype(dtype)) });
}

/** The session no longer is the owner of what is fed. */
function letGoNodes(nodes: Nodes): void {
  nodes.placeholder('let_go_held', DT_STRING, []);
  nodes.add('let_go', 'DeleteSessionTensor', ['let_go_held'], {}, HOST);
  nodes.constant('let_go_done', 'bool', [], Uint8Array.of(1), ['^let_go']);
}

/** Puts a tensor of the stored type into a variable, without a copy. */
function borrowNodes(nodes: Nodes, dtype: VariableDtype): void {
  const stored = storedDtype(dtype);
  const given = nodes.add(`borrow_${dtype}_given`, 'Placeholder', [], { dtype: type(stored) });
  nodes.assign(`borrow_${dtype}`, stored, given, 'storage_handle');
}

/** Element types of the variables. */
export function storageTypes(variables: ReadonlyMap<string, VariableSpec>): VariableDtype[] {
  return [...new Set([...variables.values()].map((spec) => spec.dtype))];
}

/**
 * The variables' handles, and the nodes that act on the one that is chosen.
 * @param onHost whether the variables lie on the host: a handle is then made only where it is chosen, and what nobody chose costs a run next to nothing.
 *   On a GPU each bit would have to be brought there twice
 */
export function storageNodes(variables: ReadonlyMap<string, VariableSpec>, onHost = false): NodeText[] {
  const nodes = new Nodes();
  if (variables.size === 0) return [];
  for (const [name, shape] of Object.entries(FED)) nodes.placeholder(name, dtypeNumber('int32'), shape);
  nodes.ints('storage_flat', [-1]);
  nodes.ints('storage_begin', [0]);
  const members = membersOf(variables.size);
  const groups = Math.ceil(variables.size / members);
  const memberBits = nodes.bits('storage_members', 'storage_member', members);
  const groupBits = nodes.bits('storage_groups', 'storage_group', groups);
  const chosen: string[][] = Array.from({ length: groups }, () => []);
  const memberGates = onHost ? nodes.controls(memberBits, members) : [];
  const groupGates = onHost ? nodes.controls(groupBits, groups) : [];
  [...variables].forEach(([name, spec], k) => {
    const n = nodeName(name);
    const attrs = {
      dtype: type(storedDtype(spec.dtype)),
      shape: attr.shape(spec.shape),
      shared_name: attr.string(n),
      container: attr.string(''),
    };
    nodes.add(`var_${n}`, 'VarHandleOp', [], attrs);
    const [group, member] = placeOf(k, variables.size);
    chosen[group]!.push(
      onHost
        ? nodes.add(`pick_${n}`, 'VarHandleOp', [groupGates[group]!, memberGates[member]!], attrs)
        : nodes.gate(`pick_${n}`, DT_RESOURCE, `var_${n}`, `${memberBits}:${member}`),
    );
  });
  const handles = chosen.map((picks, group) => {
    const one = nodes.merge(`group_${group}`, DT_RESOURCE, picks);
    if (onHost) return one;
    return nodes.gate(`pick_group_${group}`, DT_RESOURCE, one, `${groupBits}:${group}`);
  });
  nodes.merge('storage_handle', DT_RESOURCE, handles);
  const types = storageTypes(variables);
  const kinds = nodes.bits('storage_kinds', 'storage_kind', 2 * types.length);
  types.forEach((dtype, k) => {
    const [set, clear] = [false, true].map((zeros) => `${kinds}:${fillKind(k, zeros)}`) as [string, string];
    fillNodes(nodes, dtype, { set, clear });
    readNodes(nodes, dtype);
    borrowNodes(nodes, dtype);
    holdNodes(nodes, dtype);
  });
  letGoNodes(nodes);
  const done = types.map((dtype) => `fill_${dtype}_done`);
  nodes.merge('filled', dtypeNumber('bool'), done);
  return nodes.list;
}
