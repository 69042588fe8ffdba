/** The program of a compiled training step: its variables and functions, which have their names here alone. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import type { Pieces } from '../base/pieces.js';
import { bytesOfTensor } from '../engine/file_tensors.js';
import { Program, type TensorSpec, type TracedFunction } from '../jit/index.js';
import {
  bfloat16Storage,
  float32Storage,
  isStored,
  type Weight,
  type WeightBytes,
  type Weights,
  type WeightStorage,
} from '../layers/index.js';
import { type AdamWSettings, adamwUpdate, meanAndClip } from './adamw.js';
import type { BatchShape } from './batch.js';
import { type BatchTensors, lossAndGradients, lossInPieces } from './objective.js';
import type { StepKind, StepOptions } from './step.js';
import type { Trainable } from './trainable.js';

/** What the program keeps of each trained tensor: its value and both moments. */
export const KEPT = ['value', 'first', 'second'] as const;
export type Kept = (typeof KEPT)[number];

/** Names of the program's variables; i is the number of a trained tensor, j that of a frozen weight. */
export const variables = {
  kept: (kind: Kept, i: number): string => `${{ value: 'p', first: 'm', second: 'v' }[kind]}${i}`,
  /** Sum of gradients, where several batches make an update. */
  sum: (i: number): string => `g${i}`,
  frozen: (j: number, suffix: string): string => `f${j}${suffix}`,
};

/** Names of its functions. */
export const functions = {
  /** What is done with a batch of a shape. */
  of: (kind: StepKind, shape: BatchShape): string => `${kind}_${shapeKey(shape)}`,
  /** The update from the sums of gradients. */
  update: 'update',
};

/** A shape as text. */
export function shapeKey({ batch, length, segments }: BatchShape): string {
  return `${batch}x${length}${segments ? 's' : ''}`;
}

/** What a program is made for. */
export interface ProgramPlan {
  target: Trainable;
  /** Names and variables of the trained tensors. */
  trained: ReadonlyMap<string, tf.Variable>;
  settings: AdamWSettings;
  options: StepOptions;
  /** Shapes of batches, and what is done with those of each. */
  shapes: Iterable<{ shape: BatchShape; kinds: ReadonlySet<StepKind> }>;
  /** Whether several batches make an update. */
  accumulates: boolean;
  /** What gives the first value of the i-th trained tensor or of one of its moments; null for zeros. */
  initial: (i: number, kind: Kept) => WeightBytes | null;
}

type Tensors = Record<string, tf.Tensor>;

export const scalar: TensorSpec = { shape: [], dtype: 'float32' };
export const UPDATE: Record<string, TensorSpec> = {
  learning_rate: scalar,
  correction1: scalar,
  correction2: scalar,
  items: scalar,
};
export const SEED: Record<string, TensorSpec> = { seed: { shape: [2], dtype: 'int32' } };

export function batchSpecs({ batch: b, length: t, segments }: BatchShape): Record<string, TensorSpec> {
  return {
    ids: { shape: [b, t], dtype: 'int32' },
    labels: { shape: [b * t], dtype: 'int32' },
    weights: { shape: [b * t], dtype: 'float32' },
    ...(segments && { segments: { shape: [b, t], dtype: 'int32' } }),
  };
}

const tensorsOf = (inputs: Tensors): BatchTensors => inputs as unknown as BatchTensors;

/** @throws ArgumentError for a weight in a form that programs cannot keep */
export function frozenStorages({
  target,
  options,
}: Pick<ProgramPlan, 'target' | 'options'>): Map<string, WeightStorage> {
  const storages = new Map<string, WeightStorage>();
  for (const [name, weight] of Object.entries(target.frozen())) {
    if (isStored(weight)) {
      const storage = weight.storage?.();
      if (!storage)
        throw new ArgumentError(
          `Training: '${name}' is stored in a form that has no compiled one; use engine: 'eager'`,
          { name },
        );
      storages.set(name, storage);
      continue;
    }
    storages.set(
      name,
      options.bf16 && target.matrices.has(name)
        ? bfloat16Storage(weight.shape, () => bytesOfTensor(weight, 'BF16'))
        : float32Storage(weight.shape, () => bytesOfTensor(weight, 'F32')),
    );
  }
  return storages;
}

/** The program, not yet compiled, and the names of its functions. */
export function stepProgram(plan: ProgramPlan): { program: Program; defined: ReadonlySet<string> } {
  const { target, options, accumulates } = plan;
  const program = new Program({
    name: 'training',
    onCompile: options.on_compile,
    deferTracing: true,
    memoryAdvice: 'Use a smaller batch, shorter rows or gradient checkpointing.',
  });
  const defined = new Set<string>();
  const xla = options.xla ?? true;
  const define = (
    name: string,
    inputs: Record<string, TensorSpec>,
    fn: TracedFunction,
    compileOutlined = false,
  ): void => {
    defined.add(name);
    program.define(name, inputs, fn, { xla, ...(xla && { compileOutlined }) });
  };
  const blockwise = compilesBlocks(plan);
  const frozen = frozenStorages(plan);
  const names = [...plan.trained.keys()];
  [...plan.trained.values()].forEach(({ shape }, i) => {
    for (const kind of KEPT) {
      const init = plan.initial(i, kind);
      program.variable(variables.kept(kind, i), { shape, dtype: 'float32', ...(init && { init }) });
    }
    if (accumulates) program.variable(variables.sum(i), { shape, dtype: 'float32' });
  });
  [...frozen.values()].forEach((storage, j) => {
    for (const [suffix, spec] of Object.entries(storage.variables)) program.variable(variables.frozen(j, suffix), spec);
  });
  const values = (vars: Tensors): tf.Tensor[] => names.map((_, i) => vars[variables.kept('value', i)]!);
  for (const { shape, kinds } of plan.shapes) {
    const gradients = (inputs: Tensors, vars: Tensors): Pieces<{ loss: tf.Scalar; gradients: tf.Tensor[] }> =>
      lossAndGradients(target, names, values(vars), frozenWeights(frozen, vars), tensorsOf(inputs), {
        ...options,
        seed: inputs['seed'] as tf.Tensor1D,
      });
    if (kinds.has('step'))
      define(
        functions.of('step', shape),
        { ...batchSpecs(shape), ...UPDATE, ...SEED },
        function* (inputs, vars) {
          const { loss, gradients: sums } = yield* gradients(inputs, vars);
          return yield* updated(plan, inputs, vars, sums, loss);
        },
        blockwise,
      );
    if (kinds.has('accumulate'))
      define(
        functions.of('accumulate', shape),
        { ...batchSpecs(shape), ...SEED },
        function* (inputs, vars) {
          const { loss, gradients: more } = yield* gradients(inputs, vars);
          const sums = more.map((g, i) => [variables.sum(i), tf.add(vars[variables.sum(i)]!, g)] as const);
          return { outputs: { loss }, assign: Object.fromEntries(sums) };
        },
        blockwise,
      );
    if (kinds.has('evaluate'))
      define(functions.of('evaluate', shape), batchSpecs(shape), function* (inputs, vars) {
        const trained = Object.fromEntries(values(vars).map((value, i) => [names[i]!, value]));
        const all = { ...options, grads: false };
        const own = frozenWeights(frozen, vars);
        return { outputs: { loss: yield* lossInPieces(target, trained, own, tensorsOf(inputs), all) } };
      });
  }
  if (accumulates) {
    define(functions.update, UPDATE, function* (inputs, vars) {
      const sums = names.map((_, i) => vars[variables.sum(i)]!);
      const { outputs, assign } = yield* updated(plan, inputs, vars, sums, tf.scalar(0));
      const cleared = sums.map((sum, i) => [variables.sum(i), tf.zerosLike(sum)] as const);
      return { outputs: { norm: outputs['norm']! }, assign: { ...assign, ...Object.fromEntries(cleared) } };
    });
  }
  return { program, defined };
}

/** What values and moments may take where an update makes new ones beside the old. */
const BESIDE = 2 ** 30;

/**
 * Whether each block is compiled as a program of its own, the same for equal blocks. Only where blocks are computed again: all that a backward
 * pass keeps of a block would be written to memory, else. And not where much is trained, since what several programs work on is not updated
 * in place.
 */
export function compilesBlocks({ options, trained }: Pick<ProgramPlan, 'options' | 'trained'>): boolean {
  const bytes = [...trained.values()].reduce((sum, { size }) => sum + 4 * KEPT.length * size, 0);
  return options.gradient_checkpointing === true && bytes <= BESIDE;
}

/** Read at once, outside of the gradient's scope: a backward pass may use what a forward pass read. */
export function frozenWeights(frozen: ReadonlyMap<string, WeightStorage>, vars: Tensors): Weights {
  const entries = [...frozen].map(([name, storage], j): [string, Weight] => {
    const own = Object.keys(storage.variables).map((suffix) => [suffix, vars[variables.frozen(j, suffix)]!] as const);
    return [name, storage.weight(Object.fromEntries(own))];
  });
  return Object.fromEntries(entries);
}

/** AdamW over the summed gradients. When they are not finite everything stays as it was. */
function* updated(
  { trained, settings }: ProgramPlan,
  inputs: Tensors,
  vars: Tensors,
  sums: readonly tf.Tensor[],
  loss: tf.Scalar,
): Pieces<{ outputs: Tensors; assign: Tensors }> {
  yield;
  const { norm, scale } = meanAndClip(sums, inputs['items'] as tf.Scalar, settings.max_grad_norm);
  const all = [...trained.keys()].map((name, i) => ({ name, i, gradient: sums[i]! }));
  return { outputs: { loss, norm }, assign: yield* adamwOf(all, settings, inputs, vars, norm, scale, loss) };
}

/** The new values and moments of some of the trained tensors, by their variables. @param scale of the summed gradients */
export function* adamwOf(
  tensors: readonly { name: string; i: number; gradient: tf.Tensor }[],
  settings: AdamWSettings,
  inputs: Tensors,
  vars: Tensors,
  norm: tf.Scalar,
  scale: tf.Scalar,
  loss: tf.Scalar,
): Pieces<Tensors> {
  const fine = tf.isFinite(tf.add(norm, loss));
  const rate = {
    learningRate: inputs['learning_rate'] as tf.Scalar,
    correction1: inputs['correction1'] as tf.Scalar,
    correction2: inputs['correction2'] as tf.Scalar,
  };
  const assign: Tensors = {};
  for (const { name, i, gradient } of tensors) {
    yield;
    const [value, first, second] = KEPT.map((kind) => vars[variables.kept(kind, i)]!) as [
      tf.Tensor,
      tf.Tensor,
      tf.Tensor,
    ];
    const next = adamwUpdate({ name, value, gradient, first, second }, settings, rate, scale, fine);
    for (const kind of KEPT) assign[variables.kept(kind, i)] = next[kind];
  }
  return assign;
}
