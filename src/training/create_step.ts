/** Choosing between the two training steps. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import { CompiledStep } from './compiled_step.js';
import { EagerStep } from './eager_step.js';
import type { StepOptions, TrainingStep } from './step.js';
import type { Trainable } from './trainable.js';

/** Makes the step that fits the backend. @throws ArgumentError when a compiled one is asked for and cannot be */
export function createStep(target: Trainable, options: StepOptions = {}): TrainingStep {
  const native = tf.getBackend() === 'tensorflow';
  const engine = options.engine ?? 'auto';
  if (engine === 'compiled' && !native) {
    throw new ArgumentError(
      `Training: a compiled step needs the 'tensorflow' backend, and '${tf.getBackend()}' is in use`,
      { backend: tf.getBackend() },
    );
  }
  return engine === 'eager' || !native ? new EagerStep(target, options) : new CompiledStep(target, options);
}
