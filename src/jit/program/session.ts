/**
 * A loaded graph: the outer graph around traced functions (placeholders, variables, calls, uploads), written as a
 * SavedModel into a folder, which the binding loads into a TensorFlow session.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { DeviceError } from '../../base/errors.js';
import { dtypeBytes, dtypeNumber, DT_RESOURCE, sizeOf } from '../../runtime/data_types.js';
import { nodeName, type Traced } from './function.js';
import { attr, savedModel, type NodeText } from '../trace/graphdef.js';
import { outOfMemory } from './memory_error.js';
import { nodeBackend, type NativeTensor } from '../../runtime/binding.js';
import { byteShape, fillKind, placeOf, STORAGE, storageNodes, storageTypes } from './variable_io.js';
import type { Bytes, Dtype, VariableSpec } from '../types.js';

const number = dtypeNumber;
/** The name that a SavedModel has. */
const GRAPH_FILE = 'saved_model.pb';

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

/** TensorFlow's own words, without the wrapping of the binding. */
function nativeMessage(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const text = message.replace(/^Session fail to run with error: /, '');
  // The binding has room for 499 bytes.
  return Buffer.byteLength(message) >= 499
    ? `${text} … (cut by tfjs-node at 499 bytes; with TF_CPP_MIN_LOG_LEVEL=0 TensorFlow logs the whole on stderr)`
    : text;
}

/** Writes the outer graph around traced functions as a SavedModel. */
export function writeGraph(
  folder: string,
  variables: ReadonlyMap<string, VariableSpec>,
  functions: readonly Traced[],
): void {
  const onCpu = !nodeBackend().isUsingGpuDevice;
  const nodes = [...storageNodes(variables, onCpu), ...functions.flatMap(callNodes)];
  // Functions share small ones, so each name counts once.
  const library = new Map(functions.flatMap((fn) => [...fn.library, fn.text]).map((text) => [text.name, text]));
  fs.writeFileSync(path.join(folder, GRAPH_FILE), savedModel(nodes, [...library.values()]));
}

/** What storage is fed: int32 alone, see variable_io.ts. */
type Ints = readonly [shape: readonly number[], data: Int32Array];

const int = (value: number): Ints => [[], Int32Array.of(value)];
const ints = (values: readonly number[]): Ints => [[values.length], Int32Array.from(values)];

/** Bytes as whole words: the same memory where it is aligned and there is no rest, else a copy with zeros behind it. */
function wordsOf(bytes: Bytes): Int32Array {
  const { buffer, byteOffset, byteLength } = bytes;
  if (byteOffset % 4 === 0 && byteLength % 4 === 0) return new Int32Array(buffer, byteOffset, byteLength / 4);
  const words = new Int32Array(Math.ceil(byteLength / 4));
  new Uint8Array(words.buffer).set(new Uint8Array(buffer, byteOffset, byteLength));
  return words;
}

/** One TensorFlow session with its variables. */
export class Session {
  private id: number | null;
  private readonly binding = nodeBackend().binding;
  private readonly positions: ReadonlyMap<string, number>;
  private readonly types: readonly Dtype[];

  /** @param folder where writeGraph() wrote; not needed any more afterwards @throws DeviceError when TensorFlow does not accept it */
  constructor(
    private readonly label: string,
    private readonly variables: ReadonlyMap<string, VariableSpec>,
    folder: string,
    private readonly memoryAdvice = '',
  ) {
    this.positions = new Map([...variables.keys()].map((name, k) => [name, k]));
    this.types = storageTypes(variables);
    try {
      this.id = this.binding.loadSavedModel(folder, 'serve');
    } catch (error) {
      throw new DeviceError(
        `${label}: TensorFlow did not accept the graph: ${nativeMessage(error)}`,
        {},
        { cause: error },
      );
    }
  }

  /** Sets variables to zeros. */
  clear(names: readonly string[]): void {
    for (const name of names) this.fill(`zeroing the variable '${name}'`, name, null);
  }

  /** Sets a variable from bytes, which are copied before this returns. */
  set(name: string, bytes: Bytes): void {
    this.fill(`setting the variable '${name}'`, name, bytes);
  }

  /** @param bytes null for zeros */
  private fill(what: string, name: string, bytes: Bytes | null): void {
    const spec = this.variables.get(name)!;
    const words = bytes ? wordsOf(bytes) : new Int32Array(1);
    this.storage(what, name, STORAGE.fill, [
      int(fillKind(this.types.indexOf(spec.dtype), bytes === null)),
      ints(spec.shape),
      ints(byteShape(spec)),
      [[words.length], words],
      ints([bytes?.byteLength ?? 0]),
    ]);
  }

  /** Bytes of a variable in its declared dtype. */
  read(name: string): Uint8Array {
    const spec = this.variables.get(name)!;
    const size = sizeOf(spec.shape) * dtypeBytes(spec.dtype);
    const words = this.storage(`reading the variable '${name}'`, name, STORAGE.read(spec.dtype), [
      ints([size]),
      ints([(4 - (size % 4)) % 4]),
    ]);
    return new Uint8Array(words.buffer, words.byteOffset, size);
  }

  /** Runs and returns the fetched tensors, which the caller owns. */
  execute(what: string, ids: readonly number[], feeds: string, fetches: string): NativeTensor[] {
    if (this.id === null) throw new DeviceError(`${this.label}: the session is closed.`);
    try {
      return this.binding.runSavedModel(this.id, ids, feeds, fetches);
    } catch (error) {
      const text = nativeMessage(error);
      const where = `${this.label}: ${what}`;
      throw (
        outOfMemory(text, where, this.variables.values(), this.memoryAdvice) ??
        new DeviceError(`${where} failed: ${text}`, { what }, { cause: error })
      );
    }
  }

  dispose(): void {
    if (this.id !== null) this.binding.deleteSavedModel(this.id);
    this.id = null;
  }

  private storage(
    what: string,
    variable: string,
    { feeds, fetch }: { feeds: string; fetch: string },
    values: readonly Ints[],
  ): ArrayBufferView {
    const place = placeOf(this.positions.get(variable)!, this.variables.size);
    const ids: number[] = [];
    try {
      for (const [shape, data] of [...place.map(int), ...values])
        ids.push(this.binding.createTensor(shape, number('int32'), data));
      const [out] = this.execute(what, ids, feeds, fetch) as [NativeTensor];
      ids.push(out.id);
      return this.binding.tensorDataSync(out.id);
    } finally {
      for (const id of ids) this.binding.deleteTensor(id);
    }
  }
}
