/**
 * A loaded graph: the outer graph around traced functions (placeholders, variables, calls, uploads), written as a
 * SavedModel into a temporary folder, which the binding loads into a TensorFlow session.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { DeviceError } from '../errors/index.js';
import { dtypeBytes, dtypeNumber, DT_RESOURCE, sizeOf } from './dtypes.js';
import { nodeName, storedDtype, type Traced } from './function.js';
import { attr, savedModel, type NodeText } from './graphdef.js';
import { nodeBackend, type NativeTensor } from './native.js';
import type { Bytes, Dtype, VariableSpec } from './types.js';

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

/** What is fed to set a variable: a typed array that the binding takes, of this dtype and shape. */
function feedOf(spec: VariableSpec): { dtype: Dtype; shape: readonly number[] } {
  const size = sizeOf(spec.shape);
  switch (spec.dtype) {
    case 'bfloat16':
      // The binding has no 16-bit arrays: pairs travel as int32, or, when the count is odd, bytes.
      return size % 2 === 0 ? { dtype: 'int32', shape: [size / 2] } : { dtype: 'uint8', shape: [size, 2] };
    case 'int64':
      return { dtype: 'int64', shape: spec.shape };
    default:
      return { dtype: spec.dtype, shape: spec.shape };
  }
}

/** Nodes of one variable: the handle; set from a feed; set to zeros; read. */
function variableNodes(name: string, spec: VariableSpec, copies: boolean): NodeText[] {
  const n = nodeName(name);
  const stored = storedDtype(spec.dtype);
  const type = attr.type(number(stored));
  const shape = `shape_${n}`;
  const nodes: NodeText[] = [
    {
      name: `var_${n}`,
      op: 'VarHandleOp',
      inputs: [],
      attrs: { dtype: type, shape: attr.shape(spec.shape), shared_name: attr.string(n), container: attr.string('') },
    },
    constNode(shape, 'int32', [spec.shape.length], Int32Array.from(spec.shape)),
  ];
  const assign = (verb: string, value: string): void => {
    nodes.push({ name: `${verb}_${n}`, op: 'AssignVariableOp', inputs: [`var_${n}`, value], attrs: { dtype: type } });
    nodes.push(constNode(`${verb}_done_${n}`, 'bool', [], Uint8Array.of(1), [`${verb}_${n}`]));
  };
  // From a feed.
  const feed = feedOf(spec);
  let value = `feed_${n}`;
  nodes.push({
    name: value,
    op: 'Placeholder',
    inputs: [],
    attrs: { dtype: attr.type(number(feed.dtype)), shape: attr.shape(feed.shape) },
  });
  if (spec.dtype === 'int32') {
    nodes.push({
      name: `wide_${n}`,
      op: 'Cast',
      inputs: [value],
      attrs: { SrcT: attr.type(number('int32')), DstT: type, Truncate: attr.bool(false) },
    });
    value = `wide_${n}`;
  } else if (copies) {
    // Without a copy the variable would be the fed JavaScript array itself.
    nodes.push({ name: `copy_${n}`, op: 'DeepCopy', inputs: [value], attrs: { T: attr.type(number(feed.dtype)) } });
    value = `copy_${n}`;
  }
  if (feed.dtype !== stored && spec.dtype === 'bfloat16') {
    nodes.push({
      name: `bits_${n}`,
      op: 'Bitcast',
      inputs: [value],
      attrs: { T: attr.type(number(feed.dtype)), type },
    });
    nodes.push({
      name: `form_${n}`,
      op: 'Reshape',
      inputs: [`bits_${n}`, shape],
      attrs: { T: type, Tshape: attr.type(number('int32')) },
    });
    value = `form_${n}`;
  }
  assign('set', value);
  // To zeros.
  nodes.push(constNode(`zero_${n}`, stored, [], new Uint8Array(dtypeBytes(stored))));
  nodes.push({
    name: `zeros_${n}`,
    op: 'Fill',
    inputs: [shape, `zero_${n}`],
    attrs: { T: type, index_type: attr.type(number('int32')) },
  });
  assign('clear', `zeros_${n}`);
  // Read, in a type that the binding can hand out: float32, int32 or int64.
  nodes.push({ name: `get_${n}`, op: 'ReadVariableOp', inputs: [`var_${n}`], attrs: { dtype: type } });
  const out: Dtype = spec.dtype === 'bfloat16' ? 'float32' : spec.dtype === 'uint8' ? 'int32' : spec.dtype;
  if (out !== stored) {
    nodes.push({
      name: `read_${n}`,
      op: 'Cast',
      inputs: [`get_${n}`],
      attrs: { SrcT: type, DstT: attr.type(number(out)), Truncate: attr.bool(false) },
    });
  } else nodes.push({ name: `read_${n}`, op: 'Identity', inputs: [`get_${n}`], attrs: { T: type } });
  return nodes;
}

function callNodes(fn: Traced): NodeText[] {
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
    config_proto: attr.string(''),
    executor_type: attr.string(''),
    ...(fn.xla ? { _XlaMustCompile: attr.bool(true) } : {}),
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

/** TensorFlow's own words, without the wrapping of the binding. */
function nativeMessage(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const text = message.replace(/^Session fail to run with error: /, '');
  // The binding has room for 499 bytes.
  return Buffer.byteLength(message) >= 499
    ? `${text} … (cut by tfjs-node at 499 bytes; with TF_CPP_MIN_LOG_LEVEL=0 TensorFlow logs the whole on stderr)`
    : text;
}

/** One TensorFlow session with its variables. */
export class Session {
  private id: number | null;
  private readonly binding = nodeBackend().binding;

  constructor(
    private readonly label: string,
    private readonly variables: ReadonlyMap<string, VariableSpec>,
    functions: readonly Traced[],
  ) {
    const copies = !nodeBackend().isUsingGpuDevice;
    const nodes = [
      ...[...variables].flatMap(([name, spec]) => variableNodes(name, spec, copies)),
      ...functions.flatMap(callNodes),
    ];
    const library = functions.flatMap((fn) => [...fn.library, fn.text]);
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-program-'));
    try {
      fs.writeFileSync(path.join(folder, 'saved_model.pb'), savedModel(nodes, library));
      this.id = this.binding.loadSavedModel(folder, 'serve');
    } catch (error) {
      throw new DeviceError(
        `${label}: TensorFlow did not accept the graph: ${nativeMessage(error)}`,
        {},
        { cause: error },
      );
    } finally {
      fs.rmSync(folder, { recursive: true, force: true });
    }
  }

  /** Sets variables to zeros, in one run. */
  clear(names: readonly string[]): void {
    if (names.length === 0) return;
    this.fetch(
      'zeroing variables',
      [],
      '',
      names.map((n) => `clear_done_${nodeName(n)}:0`),
    );
  }

  /** Sets variables from bytes, in one run. The bytes are copied before this returns. */
  set(values: readonly (readonly [string, Bytes])[]): void {
    if (values.length === 0) return;
    const ids: number[] = [];
    try {
      for (const [name, bytes] of values) ids.push(this.feed(name, bytes));
      const feeds = values.map(([name]) => `feed_${nodeName(name)}:0`).join(',');
      this.fetch(
        'setting variables',
        ids,
        feeds,
        values.map(([name]) => `set_done_${nodeName(name)}:0`),
      );
    } finally {
      for (const id of ids) this.binding.deleteTensor(id);
    }
  }

  /** Value of a variable: Float32Array, Int32Array or BigInt64Array. */
  read(name: string): Float32Array | Int32Array | BigInt64Array {
    const [tensor] = this.execute('reading a variable', [], '', `read_${nodeName(name)}:0`) as [NativeTensor];
    try {
      return this.binding.tensorDataSync(tensor.id) as Float32Array | Int32Array | BigInt64Array;
    } finally {
      this.binding.deleteTensor(tensor.id);
    }
  }

  /** Runs and returns the fetched tensors, which the caller owns. */
  execute(what: string, ids: readonly number[], feeds: string, fetches: string): NativeTensor[] {
    if (this.id === null) throw new DeviceError(`${this.label}: the session is closed.`);
    try {
      return this.binding.runSavedModel(this.id, ids, feeds, fetches);
    } catch (error) {
      throw new DeviceError(`${this.label}: ${what} failed: ${nativeMessage(error)}`, { what }, { cause: error });
    }
  }

  dispose(): void {
    if (this.id !== null) this.binding.deleteSavedModel(this.id);
    this.id = null;
  }

  private fetch(what: string, ids: readonly number[], feeds: string, fetches: readonly string[]): void {
    for (const { id } of this.execute(what, ids, feeds, fetches.join(','))) this.binding.deleteTensor(id);
  }

  private feed(name: string, bytes: Bytes): number {
    const { dtype, shape } = feedOf(this.variables.get(name)!);
    return this.binding.createTensor(shape, number(dtype), feedArray(dtype, bytes));
  }
}

/** A typed array that the binding accepts for this dtype, over the same bytes if they are aligned. */
function feedArray(dtype: Dtype, bytes: Bytes): ArrayBufferView {
  const width = dtype === 'uint8' ? 1 : 4;
  const aligned =
    bytes.byteOffset % width === 0 ? bytes : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength).slice();
  const { buffer, byteOffset, byteLength } = aligned;
  if (dtype === 'uint8') return new Uint8Array(buffer, byteOffset, byteLength);
  if (dtype === 'float32') return new Float32Array(buffer, byteOffset, byteLength / 4);
  return new Int32Array(buffer, byteOffset, byteLength / 4);
}
