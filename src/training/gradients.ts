/** Gradients in pieces: those of tf.valueAndGrads, with room for others between the steps of both passes. */
import * as tf from '@tensorflow/tfjs';
import { TrainingError } from '../base/errors.js';
import { engineState, type Pieces } from '../base/pieces.js';

/** An op on tfjs' tape. */
interface TapeNode {
  id: number;
  kernelName: string;
  outputs: tf.Tensor[];
  inputs: Record<string, tf.Tensor>;
  gradient?: (dys: (tf.Tensor | null)[]) => Record<string, () => tf.Tensor>;
  saved?: tf.Tensor[];
}

/** Ops by which y depends on xs, in order, each with those of its inputs that do. */
function between(tape: readonly TapeNode[], xs: readonly tf.Tensor[], y: tf.Tensor): TapeNode[] {
  const fromX = new Set(xs.map(({ id }) => id));
  const forward: TapeNode[] = [];
  for (const node of tape) {
    const inputs = Object.entries(node.inputs).filter(([, x]) => fromX.has(x.id));
    if (inputs.length === 0) continue;
    for (const { id } of node.outputs) fromX.add(id);
    forward.push({ ...node, inputs: Object.fromEntries(inputs) });
  }
  const toY = new Set([y.id]);
  const found: TapeNode[] = [];
  for (const node of forward.reverse()) {
    if (!node.outputs.some(({ id }) => toY.has(id))) continue;
    for (const { id } of Object.values(node.inputs)) toY.add(id);
    found.push(node);
  }
  return found.reverse();
}

/** Gradients of y by the ids of tensors, summed in the order in which tfjs sums them. A yield before each op. */
function* backward(nodes: readonly TapeNode[], y: tf.Tensor): Pieces<Map<number, tf.Tensor>> {
  const gradients = new Map<number, tf.Tensor>([[y.id, tf.ones(y.shape)]]);
  for (const node of [...nodes].reverse()) {
    yield;
    if (!node.gradient)
      throw new TrainingError(`Training: the op ${node.kernelName} has no gradient`, { op: node.kernelName });
    const made = node.gradient(node.outputs.map(({ id }) => gradients.get(id) ?? null));
    for (const [name, x] of Object.entries(node.inputs)) {
      const of = made[name];
      if (!of)
        throw new TrainingError(`Training: the op ${node.kernelName} has no gradient of its input '${name}'`, {
          op: node.kernelName,
        });
      const dx = tf.tidy(of);
      if (dx.shape.join() !== x.shape.join())
        throw new TrainingError(
          `Training: the op ${node.kernelName} gives a gradient of [${dx.shape.join(', ')}] for its input '${name}' of [${x.shape.join(', ')}]`,
          { op: node.kernelName },
        );
      const before = gradients.get(x.id);
      if (!before) {
        gradients.set(x.id, dx);
        continue;
      }
      gradients.set(x.id, tf.add(before, dx));
      before.dispose();
    }
  }
  return gradients;
}

/**
 * The value of f and its gradients with respect to xs. Where others may run at a yield, scopes and the tape must be the caller's own (inPieces).
 * Not within another gradient.
 * @param f gives a scalar; its yields are passed on
 * @throws TrainingError where an op has no gradient, or f does not depend on one of xs
 */
export function* valueAndGradients(
  f: () => Pieces<tf.Scalar>,
  xs: readonly tf.Tensor[],
): Pieces<{ value: tf.Scalar; gradients: tf.Tensor[] }> {
  const engine = tf.engine();
  const state = engineState() as { activeTape: TapeNode[] | null; gradientDepth: number };
  const tape: TapeNode[] = [];
  let results: tf.Tensor[] = [];
  engine.startScope('gradients');
  try {
    let made: tf.Scalar | undefined;
    state.activeTape = tape;
    state.gradientDepth++;
    engine.startScope('forward');
    try {
      made = yield* f();
    } finally {
      engine.endScope(made);
      state.gradientDepth--;
    }
    const value = made;
    yield;
    const nodes = between(tape, xs, value);
    const found = yield* backward(nodes, value);
    const gradients = xs.map(({ id }, i) => {
      const gradient = found.get(id);
      if (!gradient) throw new TrainingError(`Training: the loss does not depend on trained tensor ${i}`, { i });
      return gradient;
    });
    results = [value, ...gradients];
    return { value, gradients };
  } finally {
    for (const { saved } of tape) tf.dispose(saved ?? []);
    state.activeTape = null;
    engine.endScope(results);
  }
}
