/**
 * Tokens through a model that lies on several devices. All devices begin a step at once: each waits for the stream as the one before it gives it, and the
 * device of the head tells all what it chose. So a block of many tokens is one call, and on GPUs one program of XLA on each.
 */
import * as tf from '@tensorflow/tfjs';
import type { Pieces } from '../../base/pieces.js';
import type { TensorSpec, TracedFunction, TraceResult } from '../../jit/index.js';
import { allReduce, type DeviceGroup } from '../../jit/ops/all_reduce.js';
import type { PlacedProgram } from '../../jit/program/placed.js';
import type { DecodingProgramOptions } from './decoding_program.js';
import type { DividedModel, Tensors } from './divided_model.js';
import { variables } from './names.js';

/** What is chosen on the device of the head, over its variables. */
export interface StepChoice {
  /** int32 [b], 0 or more */
  readonly fed: tf.Tensor;
  /** float32 [b]: 1 for rows that read it */
  readonly alive: tf.Tensor;
  readonly outputs: Tensors;
  readonly assign: Tensors;
}

/** How tokens of a step come to be. */
export interface StepKind {
  readonly inputs: Record<string, TensorSpec>;
  /** Null: they are given, as `tokens`. */
  readonly choose: ((given: Tensors, vars: Tensors) => StepChoice) | null;
  /** Outputs of devices that do not choose: what a loop carries must be there on all. */
  readonly others?: (given: Tensors) => Tensors;
}

/** Variables of what devices tell one another. */
export function declareMessages(program: PlacedProgram): void {
  for (let k = 0; k < program.group.size; k++) {
    program.variable(variables.heard(k), { shape: [1], dtype: 'float32' }, k);
    program.variable(variables.infinity(k), { shape: [1], dtype: 'float32', init: () => Float32Array.of(Infinity) }, k);
  }
}

/**
 * What devices tell one another in a step: each message is a sum over all, to which one of them gives what it has to say and the others zeros. All must
 * take part in the same order; so whoever is silent makes its zeros of what it heard before, in a way that no compiler sees through, and keeps the last
 * it heard: sums that depend on nothing, or that nothing depends on, might be made in another order, together, or not at all.
 */
class Messages {
  private last: tf.Tensor;

  constructor(
    private readonly group: DeviceGroup,
    private readonly device: number,
    private readonly vars: Tensors,
  ) {
    this.last = vars[variables.heard(device)]!;
  }

  /** @param own null where another device speaks @param shape of the message */
  tell(own: tf.Tensor | null, shape: number[]): tf.Tensor {
    const { group, device, vars } = this;
    if (group.size === 1) return own!;
    // 0: nothing is more than infinity, and a number that is none is not more either
    const silent = tf.cast(tf.greater(this.last, vars[variables.infinity(device)]!), 'float32');
    const heard = allReduce(own ?? tf.add(tf.zeros(shape), silent), group);
    this.last = tf.slice(tf.reshape(heard, [-1]), [0], [1]);
    return heard;
  }

  assign(): Tensors {
    return this.group.size === 1 ? {} : { [variables.heard(this.device)]: this.last };
  }
}

/** Adds a step of b rows whose states are in a place. */
export function defineStep(
  program: PlacedProgram,
  model: DividedModel,
  options: DecodingProgramOptions,
  { name, b, place, kind }: { name: string; b: number; place: string; kind: StepKind },
): void {
  const { head } = model.division;
  program.defineTogether(
    name,
    kind.inputs,
    head,
    (device): TracedFunction =>
      function* (given, vars) {
        return yield* stepOn(device, program.group, model, options, { b, place, kind, given, vars });
      },
  );
}

interface Step {
  readonly b: number;
  readonly place: string;
  readonly kind: StepKind;
  readonly given: Tensors;
  readonly vars: Tensors;
}

/** What a device does in a step. */
function* stepOn(
  device: number,
  group: DeviceGroup,
  model: DividedModel,
  { mergeStep }: DecodingProgramOptions,
  { b, place, kind, given, vars }: Step,
): Pieces<TraceResult> {
  const { network, stretches } = model;
  const { hidden_size: d } = network.config;
  const messages = new Messages(group, device, vars);
  const logits = variables.logitsOf(place);
  const choice = device === model.division.head ? (kind.choose?.(given, vars) ?? null) : null;
  let fed: tf.Tensor | null = given['tokens'] ?? null;
  let alive: tf.Tensor = tf.ones([b]);
  if (kind.choose) {
    const own = choice && tf.concat([tf.cast(choice.fed, 'float32') as tf.Tensor1D, choice.alive as tf.Tensor1D]);
    const told = messages.tell(own, [2 * b]) as tf.Tensor1D;
    const [ids, mask] = [tf.slice(told, [0], [b]), tf.slice(told, [b], [b])];
    [fed, alive] = [tf.cast(ids, 'int32'), mask];
  }
  const mask = tf.reshape(alive, [b, 1]) as tf.Tensor2D;
  // what XLA adds up with other devices must be of one function: it numbers sums in each
  const outlined = group.place !== 'inside' || group.size === 1;
  let assign: Tensors = { ...choice?.assign };
  let stream: tf.Tensor3D | null = null;
  for (const [i, stretch] of stretches.entries()) {
    let own: tf.Tensor2D | null = null;
    if (stretch.device === device) {
      const w = model.of(device, vars);
      const h: tf.Tensor3D = stretch.embeds ? network.embed(w, tf.reshape(fed!, [b, 1])) : stream!;
      // norm and head of one position are one kernel where they can be
      const both = stretch.norms && stretch.heads;
      const run = { run: { mask, mergeStep }, withoutNorm: both, outlined };
      const out = yield* model.layers(stretch, b, place, vars, h, run);
      own = tf.reshape(out.h, [b, d]);
      assign = { ...assign, ...out.assign };
      if (stretch.heads) {
        const next = both ? network.normedHead(w, own, out.handover) : network.head(w, own);
        assign[logits] = tf.where(tf.greater(mask, 0), next, vars[logits]!);
      }
    }
    if (i < stretches.length - 1) stream = tf.reshape(messages.tell(own, [b, d]), [b, 1, d]);
  }
  const outputs = choice ? choice.outputs : kind.others?.(given);
  return { ...(outputs && { outputs }), assign: { ...assign, ...messages.assign() } };
}
