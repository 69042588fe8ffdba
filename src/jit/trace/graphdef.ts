/**
 * TensorFlow's graph messages, written directly: NodeDef, FunctionDef and GraphDef (field numbers from
 * tensorflow/core/framework/*.proto).
 */
import type { Pieces } from '../../base/pieces.js';
import { TracingError } from '../errors.js';
import { findDtype, type Dtype } from '../../runtime/data_types.js';
import { MessageWriter } from '../../base/proto.js';

/** One attribute of a node. */
export type Attr =
  | { kind: 'string'; value: string | Uint8Array }
  | { kind: 'int'; value: number | readonly number[] }
  | { kind: 'float'; value: number | readonly number[] }
  | { kind: 'bool'; value: boolean }
  | { kind: 'type'; value: number }
  | { kind: 'types'; value: readonly number[] }
  | { kind: 'shape'; value: readonly number[] }
  | { kind: 'shapes'; value: readonly (readonly number[])[] }
  | { kind: 'func'; value: string }
  | { kind: 'tensor'; dtype: number; shape: readonly number[]; content: Uint8Array };

export type Attrs = Record<string, Attr>;

/** A node as text: inputs are references, `^name` is a control input. */
export interface NodeText {
  name: string;
  op: string;
  inputs: readonly string[];
  attrs: Attrs;
  device?: string;
}

/** The element type of an attribute's number. @throws TracingError for types that programs cannot hold (string, float64 …) */
export function typeOf(number: number): Dtype {
  const dtype = findDtype(number);
  if (dtype === null)
    throw new TracingError(`TensorFlow dtype number ${number} is not supported in programs.`, { dtype: number });
  return dtype;
}

/** Name and DataType number of an argument. */
export type Argument = readonly [name: string, dtype: number];

export interface FunctionText {
  name: string;
  inputs: readonly Argument[];
  outputs: readonly Argument[];
  nodes: readonly NodeText[];
  /** Output argument -> reference. */
  returns: Record<string, string>;
  /** Nodes that must run though no output depends on them. */
  effects: readonly string[];
  attrs: Attrs;
}

function shapeMessage(shape: readonly number[]): MessageWriter {
  const message = new MessageWriter();
  for (const size of shape) message.bytes(2, new MessageWriter().int(1, size));
  return message;
}

function attrMessage(attr: Attr): MessageWriter {
  const m = new MessageWriter();
  switch (attr.kind) {
    case 'string':
      return m.bytes(2, attr.value);
    case 'int':
      return typeof attr.value === 'number'
        ? m.int(3, attr.value)
        : m.bytes(1, new MessageWriter().packedInts(3, attr.value));
    case 'float':
      return typeof attr.value === 'number'
        ? m.float(4, attr.value)
        : m.bytes(1, new MessageWriter().packedFloats(4, attr.value));
    case 'bool':
      return m.bool(5, attr.value);
    case 'type':
      return m.int(6, attr.value);
    case 'types':
      return m.bytes(1, new MessageWriter().packedInts(6, attr.value));
    case 'shape':
      return m.bytes(7, shapeMessage(attr.value));
    case 'shapes': {
      const list = new MessageWriter();
      for (const shape of attr.value) list.bytes(7, shapeMessage(shape));
      return m.bytes(1, list);
    }
    case 'tensor':
      return m.bytes(
        8,
        new MessageWriter().int(1, attr.dtype).bytes(2, shapeMessage(attr.shape)).bytes(4, attr.content),
      );
    case 'func':
      return m.bytes(10, new MessageWriter().bytes(1, attr.value));
  }
}

function nodeMessage(node: NodeText): MessageWriter {
  const m = new MessageWriter().bytes(1, node.name).bytes(2, node.op);
  for (const input of node.inputs) m.bytes(3, input);
  if (node.device) m.bytes(4, node.device);
  for (const [name, attr] of Object.entries(node.attrs)) m.entry(5, name, attrMessage(attr));
  return m;
}

/** Nodes between two yields. */
const NODES = 200;

function* functionMessage(fn: FunctionText): Pieces<MessageWriter> {
  const arg = ([name, dtype]: Argument): MessageWriter => new MessageWriter().bytes(1, name).int(3, dtype);
  const signature = new MessageWriter().bytes(1, fn.name);
  for (const input of fn.inputs) signature.bytes(2, arg(input));
  for (const output of fn.outputs) signature.bytes(3, arg(output));
  signature.bool(17, true);
  for (const effect of fn.effects) signature.bytes(20, effect);
  const m = new MessageWriter().bytes(1, signature);
  for (const [i, node] of fn.nodes.entries()) {
    m.bytes(3, nodeMessage(node));
    if (i % NODES === NODES - 1) yield;
  }
  for (const [name, ref] of Object.entries(fn.returns)) m.entry(4, name, ref);
  // MetaOptimizer skips functions marked so (as tf.data's are); XLA optimises these anyway.
  m.entry(5, '_tf_data_function', attrMessage(attr.bool(true)));
  for (const [name, value] of Object.entries(fn.attrs)) m.entry(5, name, attrMessage(value));
  for (const effect of fn.effects) m.entry(6, effect, effect);
  return m;
}

/** GraphDef version that switches on today's op semantics; any number from TensorFlow 2.9 on will do. */
const PRODUCER = 1500;

/** The bytes of a GraphDef. */
export function* graphDef(nodes: readonly NodeText[], functions: readonly FunctionText[]): Pieces<Uint8Array> {
  const graph = new MessageWriter();
  for (const [i, node] of nodes.entries()) {
    graph.bytes(1, nodeMessage(node));
    if (i % NODES === NODES - 1) yield;
  }
  const library = new MessageWriter();
  for (const fn of functions) {
    library.bytes(1, yield* functionMessage(fn));
    yield;
  }
  return graph.bytes(2, library).bytes(4, new MessageWriter().int(1, PRODUCER)).finish();
}

/** Shorthands for attributes. */
export const attr = {
  type: (value: number): Attr => ({ kind: 'type', value }),
  types: (value: readonly number[]): Attr => ({ kind: 'types', value }),
  int: (value: number | readonly number[]): Attr => ({ kind: 'int', value }),
  float: (value: number): Attr => ({ kind: 'float', value }),
  bool: (value: boolean): Attr => ({ kind: 'bool', value }),
  string: (value: string | Uint8Array): Attr => ({ kind: 'string', value }),
  shape: (value: readonly number[]): Attr => ({ kind: 'shape', value }),
  shapes: (value: readonly (readonly number[])[]): Attr => ({ kind: 'shapes', value }),
  func: (value: string): Attr => ({ kind: 'func', value }),
  tensor: (dtype: number, shape: readonly number[], content: Uint8Array): Attr => ({
    kind: 'tensor',
    dtype,
    shape,
    content,
  }),
};
