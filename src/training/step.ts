/** A training step, eager or compiled, behind one interface. Both call the same functions; see objective.ts and adamw.ts. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import type { CompileHook } from '../jit/index.js';
import type { AdamWSettings } from './adamw.js';
import type { BatchShape, PreparedBatch } from './batch.js';
import type { BatchTensors, ObjectiveOptions } from './objective.js';
import type { ReplicaOptions } from './replicas/step.js';

export interface StepOptions extends Partial<AdamWSettings>, ObjectiveOptions {
  /** 'auto' (default): compiled on the tensorflow backend, eager elsewhere. */
  engine?: 'auto' | 'compiled' | 'eager';
  /** Compile with XLA (default true). False runs the program's graph op by op: slower, but it starts at once. */
  xla?: boolean;
  /** Replicas on several devices (replicas/step.ts); the compiled step only. */
  replicas?: ReplicaOptions;
  /** Told about compilation; the compiled step only. */
  on_compile?: CompileHook;
}

export interface StepResult {
  /** Mean loss over all positions that count, of all batches. */
  loss: number;
  /** Global norm of the gradients before clipping. */
  grad_norm: number;
  /** Positions that counted. */
  items: number;
}

/** First and second moments of one trained tensor. */
export interface Moments {
  first: Float32Array;
  second: Float32Array;
}

/** What a batch is used for: an update of its own, a part of one, or evaluation. */
export type StepKind = 'step' | 'accumulate' | 'evaluate';

export interface TrainingStep {
  readonly engine: 'compiled' | 'eager';
  /** Updates made so far; the t of Adam's bias correction. */
  readonly steps: number;
  /**
   * Tells of batches to come, so that one program is made for all of them. Others may come too, at the price of a new
   * program.
   */
  expect(kind: StepKind, shapes: readonly BatchShape[]): void;
  /**
   * One update from one or more batches, each position weighted the same whatever batch it is in. When loss or gradients
   * are not finite nothing is changed, and the result says so.
   * @param seed of dropout
   */
  step(batches: readonly PreparedBatch[], learningRate: number, seed: number): Promise<StepResult>;
  /** Summed loss of a batch, without dropout. */
  evaluate(batch: PreparedBatch): Promise<number>;
  /** Brings the model's own variables up to date, all at once; the event loop is free meanwhile. Cheap when nothing changed. */
  sync(): Promise<void>;
  /** As sync(), at once: the event loop stands still. */
  syncNow(): void;
  /** Takes the model's variables over, after they were changed from outside. */
  refresh(): Promise<void>;
  /** The optimizer's state of a tensor, by its name, after the updates that were asked for before; the event loop is free meanwhile. */
  moments(name: string): Promise<Moments>;
  /** Begins anew from an optimizer's state. The moments are not copied at once: nobody may change them. */
  restore(steps: number, moments: (name: string) => Moments): Promise<void>;
  dispose(): void;
}

/** Gives a model's variables new values, all in one piece. @param values in the order of the variables */
export function assignAll(variables: Iterable<tf.Variable>, values: readonly Float32Array[]): void {
  [...variables].forEach((variable, i) => tf.tidy(() => variable.assign(tf.tensor(values[i]!, variable.shape))));
}

/** The tensors of a batch; the caller's to dispose. */
export function batchTensors(batch: PreparedBatch): BatchTensors {
  const shape: [number, number] = [batch.batch, batch.length];
  return {
    ids: tf.tensor2d(batch.ids, shape, 'int32'),
    labels: tf.tensor1d(batch.labels, 'int32'),
    weights: tf.tensor1d(batch.weights),
    ...(batch.segments && { segments: tf.tensor2d(batch.segments, shape, 'int32') }),
  };
}

/** Positions that count in several batches. @throws ArgumentError when none does */
export function countItems(batches: readonly PreparedBatch[]): number {
  const items = batches.reduce((sum, { items: n }) => sum + n, 0);
  if (items === 0)
    throw new ArgumentError(
      'Training: no position of the batch counts: every label is left out. Is max_length shorter than the prompts?',
      {},
    );
  return items;
}
