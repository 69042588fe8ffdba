/**
 * A function graph under construction: nodes with inferred types and shapes, constants stored once, tensors of an
 * enclosing graph captured as extra arguments.
 */
import { createHash } from 'node:crypto';
import { TracingError } from '../errors.js';
import { describe, dtypeBytes, dtypeNumber, DT_RESOURCE, sizeOf } from '../../runtime/data_types.js';
import { attr, type Argument, type Attrs, type FunctionText, type NodeText } from './graphdef.js';
import { sharedOp, type SharedOp } from './shared_ops.js';
import type { Dtype } from '../types.js';

/** A symbolic tensor: output `index` of a node, or an argument, or a constant that belongs to no graph yet. */
export interface Value {
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  /** Where it is computed; null for constants. */
  readonly graph: FunctionGraph | null;
  readonly node: Node | null;
  readonly index: number;
  /** Known at trace time: row-major elements. */
  readonly data?: ArrayBufferView;
}

/**
 * Where functions are outlined (see fusion/outline.ts): at a node that TensorFlow runs itself, between functions that XLA compiles; or at
 * a border, which only separates one function from the next.
 */
export type Cut = 'tensorflow' | 'border';

/** An op in a graph. */
export interface Node {
  readonly name: string;
  readonly op: string;
  readonly inputs: readonly Value[];
  readonly attrs: Attrs;
  /** Name of the output argument of each output, and its index there. */
  readonly outputRefs: readonly string[];
  /** Handle of the variable that a ReadVariableOp reads: its first input. */
  readonly handle?: string;
  /** What is written in place of op and attrs. */
  readonly call?: SharedOp;
  /** Whether functions are outlined on either side of it. */
  readonly cut?: Cut;
}

/** A constant as a symbolic tensor. */
export function constantValue(data: ArrayBufferView, shape: readonly number[], dtype: Dtype): Value {
  return { shape, dtype, graph: null, node: null, index: 0, data };
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
const sha1 = (bytes: Uint8Array): string => createHash('sha1').update(bytes).digest('hex');

/** Whether all elements have the same bits. Read by the word where they lie on words: a constant can have gigabytes. */
function uniform(bytes: Uint8Array, width: number): boolean {
  const words = width === 4 && bytes.byteOffset % 4 === 0;
  const elements = words ? new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4) : bytes;
  const step = words ? 1 : width;
  for (let i = step; i < elements.length; i++) if (elements[i] !== elements[i - step]) return false;
  return true;
}

/** Select is slow to compile (shared_ops.ts). Its successor does the same where all shapes are the same, and is not. */
function cheaper(op: string, inputs: readonly Value[]): string {
  if (op !== 'Select') return op;
  const [condition, ...branches] = inputs.map(({ shape }) => shape.join());
  return branches.every((shape) => shape === condition) ? 'SelectV2' : op;
}

/** Builds one function. */
export class FunctionGraph {
  private nodes: Node[] = [];
  private parameters: Argument[] = [];
  private handles: string[] = [];
  private constants = new Map<string, Value>();
  private captured = new Map<Value, { value: Value; argument: Argument }>();
  private names = new Map<string, number>();
  /** Functions that nodes of this one call (bodies of loops). */
  readonly library: FunctionText[] = [];
  /** DataType number of each reference. */
  readonly types = new Map<string, number>();

  constructor(
    readonly name: string,
    readonly parent: FunctionGraph | null = null,
    /** Whether XLA compiles it. */
    readonly xla: boolean = parent?.xla ?? true,
    /** Whether large products may be kernels of TensorFlow (DefineOptions.tensorflowProducts); never so in bodies of loops. */
    readonly tensorflowProducts: boolean = false,
  ) {}

  /** Declares an argument. */
  parameter(name: string, shape: readonly number[], dtype: Dtype): Value {
    this.parameters.push([name, dtypeNumber(dtype)]);
    this.types.set(name, dtypeNumber(dtype));
    return this.argument(name, shape, dtype);
  }

  /** Declares that the function takes the handle of a variable; the reference of the handle is `h_name`. */
  handle(variable: string): string {
    const ref = `h_${variable}`;
    if (!this.handles.includes(ref)) this.handles.push(ref);
    return ref;
  }

  /** Appends a node; `outputs` gives name, type and shape of each output in order. */
  add(
    op: string,
    inputs: readonly Value[],
    attrs: Attrs,
    outputs: readonly { ref: string; shape: readonly number[]; dtype: Dtype }[],
    cut?: Cut,
  ): Value[] {
    const local = inputs.map((value) => this.local(value));
    const name = this.unique(op);
    const node = {
      ...this.node(name, this.xla ? cheaper(op, local) : op, local, attrs, outputs),
      ...(cut ? { cut } : {}),
    };
    this.nodes.push(node);
    outputs.forEach(({ dtype }, i) => this.types.set(node.outputRefs[i]!, dtypeNumber(dtype)));
    return outputs.map(({ shape, dtype }, index) => ({ shape, dtype, graph: this, node, index }));
  }

  /** Reads a variable: a node without inputs but its handle. */
  readVariable(variable: string, shape: readonly number[], dtype: Dtype): Value {
    const handle = this.handle(variable);
    const name = this.unique(`read_${variable}`);
    const attrs = { dtype: attr.type(dtypeNumber(dtype)) };
    const node: Node = { name, op: 'ReadVariableOp', inputs: [], attrs, outputRefs: [`${name}:value:0`], handle };
    this.nodes.push(node);
    this.types.set(node.outputRefs[0]!, dtypeNumber(dtype));
    return { shape, dtype, graph: this, node, index: 0 };
  }

  /** The same tensor as a value of this graph: itself, a constant node, or an argument that captures an outer tensor. */
  local(value: Value): Value {
    if (value.graph === this) return value;
    if (value.graph === null) return this.constant(value);
    for (let outer = this.parent; outer; outer = outer.parent) {
      if (outer !== value.graph) continue;
      let inner = this.captured.get(value);
      if (!inner) {
        const name = `captured_${this.captured.size}`;
        inner = { value: this.argument(name, value.shape, value.dtype), argument: [name, dtypeNumber(value.dtype)] };
        this.captured.set(value, inner);
      }
      return inner.value;
    }
    throw new TracingError(
      `A symbolic tensor ${describe(value)} of '${value.graph.name}' is used in '${this.name}'. Tensors of one trace cannot be used in another: return it as an output and pass it as an input.`,
      { from: value.graph.name, to: this.name },
    );
  }

  /** Names of the ops appended so far. */
  ops(): string[] {
    return this.nodes.map((node) => node.op);
  }

  /** Names of the nodes that cut the function so. */
  cuts(cut: Cut): Set<string> {
    return new Set(this.nodes.filter((node) => node.cut === cut).map((node) => node.name));
  }

  /** Outer tensors that became arguments, in order of first use. */
  captures(): Value[] {
    return [...this.captured.keys()];
  }

  /** Variables whose handles the function takes, in order. */
  variables(): string[] {
    return this.handles.map((h) => h.slice(2));
  }

  /**
   * The function as text, without nodes that nothing needs.
   * @param outputs name and value of each output
   * @param assigns variable name and new value
   * @param captures outer tensors in the order of their arguments, which follow the declared ones
   */
  finish(
    outputs: readonly (readonly [string, Value])[],
    assigns: readonly (readonly [string, Value])[],
    attrs: Attrs,
    captures: readonly Value[] = [],
  ): FunctionText {
    const results = outputs.map(([name, value]) => [name, this.local(value)] as const);
    const stores = assigns.map(([name, value]) => [this.handle(name), name, this.local(value)] as const);
    const live = new Set<Node>();
    const visit = [...results.map((r) => r[1]), ...stores.map((s) => s[2])];
    while (visit.length > 0) {
      const node = visit.pop()!.node!;
      if (live.has(node)) continue;
      live.add(node);
      visit.push(...node.inputs);
    }
    const nodes: NodeText[] = [];
    const reads: string[] = [];
    const ref = (value: Value): string => value.node!.outputRefs[value.index]!;
    for (const node of this.nodes) {
      if (!live.has(node)) continue;
      const inputs = node.inputs.map(ref);
      if (node.handle) {
        inputs.unshift(node.handle);
        reads.push(node.name);
      }
      nodes.push({ name: node.name, op: node.call?.op ?? node.op, inputs, attrs: node.call?.attrs ?? node.attrs });
      if (node.call) this.library.push(node.call.callee);
    }
    const effects: string[] = [];
    for (const [handle, variable, value] of stores) {
      const name = this.unique(`assign_${variable}`);
      // After the read: assignments take place together, at the end.
      const after = reads.filter((r) => r === `read_${variable}`).map((r) => `^${r}`);
      nodes.push({
        name,
        op: 'AssignVariableOp',
        inputs: [handle, ref(value), ...after],
        attrs: { dtype: attr.type(dtypeNumber(value.dtype)) },
      });
      effects.push(name);
    }
    const inputs = [...this.parameters];
    for (const outer of captures) {
      this.local(outer);
      inputs.push(this.captured.get(outer)!.argument);
    }
    for (const handle of this.handles) inputs.push([handle, DT_RESOURCE]);
    return {
      name: this.name,
      inputs,
      outputs: results.map(([name, value]) => [name, dtypeNumber(value.dtype)]),
      nodes,
      returns: Object.fromEntries(results.map(([name, value]) => [name, ref(value)])),
      effects,
      attrs,
    };
  }

  private node(
    name: string,
    op: string,
    inputs: readonly Value[],
    attrs: Attrs,
    outputs: readonly { ref: string; dtype: Dtype }[],
  ): Node {
    const [first] = outputs;
    if (this.xla && first && outputs.length === 1) {
      const types = inputs.map((v) => dtypeNumber(v.dtype));
      const call = sharedOp(op, attrs, types, dtypeNumber(first.dtype), first.ref);
      if (call) return { name, op, inputs, attrs, call, outputRefs: [`${name}:output:0`] };
    }
    return { name, op, inputs, attrs, outputRefs: outputs.map((o) => `${name}:${o.ref}`) };
  }

  private argument(name: string, shape: readonly number[], dtype: Dtype): Value {
    return { shape, dtype, graph: this, node: { name, op: '', inputs: [], attrs: {}, outputRefs: [name] }, index: 0 };
  }

  private constant(value: Value): Value {
    const { shape, dtype } = value;
    const bytes = bytesOf(value.data!);
    const width = dtypeBytes(dtype);
    const filled = sizeOf(shape) > 16 && uniform(bytes, width);
    const content = filled ? `all ${text(bytes.subarray(0, width))}` : bytes.length <= 64 ? text(bytes) : sha1(bytes);
    const key = `${dtype}|${shape.join()}|${content}`;
    let node = this.constants.get(key);
    if (!node) {
      if (filled) {
        const dims = this.local(constantValue(Int32Array.from(shape), [shape.length], 'int32'));
        const element = this.local(constantValue(bytes.slice(0, width), [], dtype));
        const attrs = { T: attr.type(dtypeNumber(dtype)), index_type: attr.type(dtypeNumber('int32')) };
        node = this.add('Fill', [dims, element], attrs, [{ ref: 'output:0', shape, dtype }])[0]!;
      } else {
        const number = dtypeNumber(dtype);
        const attrs = { dtype: attr.type(number), value: attr.tensor(number, shape, bytes.slice()) };
        node = this.add('Const', [], attrs, [{ ref: 'output:0', shape, dtype }])[0]!;
      }
      node = { ...node, data: value.data! };
      this.constants.set(key, node);
    }
    return node;
  }

  /** A name for a function that this one calls. */
  childName(base: string): string {
    return `${this.name}_${this.unique(base)}`;
  }

  private unique(base: string): string {
    const n = this.names.get(base) ?? 0;
    this.names.set(base, n + 1);
    return n === 0 ? base : `${base}_${n}`;
  }
}
