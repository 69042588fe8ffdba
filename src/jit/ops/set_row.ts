/** One row of a buffer replaced, or some, inside a program: where the buffer is a variable's value or a loop's, nothing else of it is moved. */
import type * as tf from '@tensorflow/tfjs';
import { record, symbolic, valueOf } from '../trace/backend.js';
import { constantValue, type Value } from '../trace/graph.js';

const int32 = (values: number[], shape: number[]): Value => constantValue(Int32Array.from(values), shape, 'int32');

/**
 * The buffer with `row` in place of its row `index`. Traced code only; any element type.
 * @param buffer [n, ...shape] @param index int32 scalar @param row of as many elements as a row has, of the same type
 * @param xla whether XLA compiles this
 */
export function setRow(buffer: tf.Tensor, index: tf.Tensor, row: tf.Tensor, xla = true): tf.Tensor {
  const [target, at, value] = [valueOf(buffer), valueOf(index), valueOf(row)];
  const shape = target.shape.slice(1);
  const dims = [1, ...shape];
  const update = record('Reshape', {}, [value, int32(dims, [dims.length])])[0]!;
  if (!xla) {
    const where = record('Reshape', {}, [at, int32([1, 1], [2])])[0]!;
    return symbolic(record('TensorScatterUpdate', {}, [target, where, update])[0]!);
  }
  const first = record('Reshape', {}, [at, int32([1], [1])])[0]!;
  const rest = int32(new Array<number>(shape.length).fill(0), [shape.length]);
  const start = record('ConcatV2', {}, [first, rest, int32([0], [])])[0]!;
  return symbolic(record('XlaDynamicUpdateSlice', {}, [target, update, start])[0]!);
}

/**
 * The buffer with `rows` in place of its rows `indices`. Traced code only; any element type.
 * @param buffer [n, ...shape] @param indices int32 [k]; where one comes twice its rows must be the same @param rows [k, ...shape], of the same type
 */
export function setRows(buffer: tf.Tensor, indices: tf.Tensor, rows: tf.Tensor): tf.Tensor {
  const [target, at, values] = [valueOf(buffer), valueOf(indices), valueOf(rows)];
  const where = record('Reshape', {}, [at, int32([values.shape[0]!, 1], [2])])[0]!; // [k, 1]
  return symbolic(record('TensorScatterUpdate', {}, [target, where, values])[0]!);
}
