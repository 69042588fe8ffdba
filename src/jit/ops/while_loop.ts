/** Loops inside a program. */
import * as tf from '@tensorflow/tfjs';
import { TracingError } from '../errors.js';
import { atOnce, isPieces, type Pieces } from '../../base/pieces.js';
import { currentGraph, symbolic, traceInto, valueOf } from '../trace/backend.js';
import { describe, dtypeNumber } from '../../runtime/data_types.js';
import { FunctionGraph, type Value } from '../trace/graph.js';
import { attr } from '../trace/graphdef.js';

/**
 * Repeats `body` while `condition` holds, inside the program. Traced code only; no gradient. Tensors of the surrounding code may be used in both functions.
 * @param condition carried tensors to a bool scalar
 * @param body carried tensors to their next values, of the same shapes and dtypes
 * @param initial first values
 * @returns the carried tensors when the condition became false
 * @throws TracingError outside of traced code, under a gradient, or when a shape or dtype changes
 * @example const [n] = whileLoop(([i]) => tf.less(i, 10), ([i]) => [tf.add(i, 1)], [tf.scalar(0)]); // 10
 */
export function whileLoop(
  condition: (carried: tf.Tensor[]) => tf.Tensor,
  body: (carried: tf.Tensor[]) => tf.Tensor[],
  initial: readonly tf.Tensor[],
): tf.Tensor[] {
  return atOnce(whileLoopInPieces(condition, body, initial));
}

/** As whileLoop(), of a body that is traced in pieces. */
export function* whileLoopInPieces(
  condition: (carried: tf.Tensor[]) => tf.Tensor,
  body: (carried: tf.Tensor[]) => tf.Tensor[] | Pieces<tf.Tensor[]>,
  initial: readonly tf.Tensor[],
): Pieces<tf.Tensor[]> {
  const outer = currentGraph();
  const { gradientDepth } = (tf.engine() as unknown as { state: { gradientDepth: number } }).state;
  if (gradientDepth > 0) {
    throw new TracingError('whileLoop has no gradient: unroll the loop where tf.grads or variableGrads must see it.');
  }
  const start = initial.map((x) => outer.local(valueOf(x)));
  const name = outer.childName('while');
  const part = (suffix: string): { graph: FunctionGraph; carried: Value[] } => {
    const graph = new FunctionGraph(`${name}_${suffix}`, outer);
    return { graph, carried: start.map((v, i) => graph.parameter(`v${i}`, v.shape, v.dtype)) };
  };
  const test = part('condition');
  const go = yield* traceInto(test.graph, () => test.graph.local(valueOf(condition(test.carried.map(symbolic)))));
  if (go.dtype !== 'bool' || go.shape.length !== 0) {
    throw new TracingError(`whileLoop: the condition is ${describe(go)}, expected a bool scalar.`);
  }
  const step = part('body');
  const next = yield* traceInto(step.graph, function* (): Pieces<Value[]> {
    const made = body(step.carried.map(symbolic));
    const tensors = isPieces(made) ? yield* made : made;
    return tensors.map((x) => step.graph.local(valueOf(x)));
  });
  if (next.length !== start.length) {
    throw new TracingError(`whileLoop: the body returned ${next.length} tensors, expected ${start.length}.`);
  }
  next.forEach((value, i) => {
    if (describe(value) !== describe(start[i]!)) {
      throw new TracingError(
        `whileLoop: carried tensor ${i} is ${describe(start[i]!)} and becomes ${describe(value)}.`,
      );
    }
  });
  // Both functions take the same arguments: carried tensors, then all that either captured.
  const captures = [...new Set([...test.graph.captures(), ...step.graph.captures()])];
  const outputs = next.map((value, i) => [`n${i}`, value] as const);
  const passed = captures.map((value, i) => [`c${i}`, step.graph.local(value)] as const);
  const texts = [
    test.graph.finish([['go', go]], [], {}, captures),
    step.graph.finish([...outputs, ...passed], [], {}, captures),
  ];
  outer.library.push(...test.graph.library, ...step.graph.library, ...texts);
  const inputs = [...start, ...captures];
  const attrs = {
    T: attr.types(inputs.map((v) => dtypeNumber(v.dtype))),
    cond: attr.func(test.graph.name),
    body: attr.func(step.graph.name),
    parallel_iterations: attr.int(1),
  };
  const results = outer.add(
    'While',
    inputs,
    attrs,
    inputs.map((v, i) => ({ ref: `output:${i}`, shape: v.shape, dtype: v.dtype })),
  );
  return results.slice(0, start.length).map(symbolic);
}
