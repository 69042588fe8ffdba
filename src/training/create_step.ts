/** Choosing between the two training steps. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';
import { CompiledStep } from './compiled_step.js';
import { EagerStep } from './eager_step.js';
import { replicated, ReplicatedStep } from './replicas/step.js';
import type { StepOptions, TrainingStep } from './step.js';
import type { Trainable } from './trainable.js';

const beta = { kind: kinds.number({ min: 0, below: 1 }) };
const flag = { kind: kinds.boolean };

const STEP_TABLE = new OptionTable<StepOptions>(
  'createStep()',
  {
    beta1: { ...beta, default: 0.9 },
    beta2: { ...beta, default: 0.999 },
    epsilon: { kind: kinds.number({ min: 0 }), default: 1e-8 },
    weight_decay: { kind: kinds.number({ min: 0 }), default: 0 },
    decays: { kind: kinds.func },
    max_grad_norm: { kind: kinds.orNull(kinds.number({ above: 0 })), default: 1 },
    bf16: { ...flag, default: false },
    gradient_checkpointing: { ...flag, default: false },
    engine: { kind: kinds.oneOf('auto', 'compiled', 'eager'), default: 'auto' },
    xla: { ...flag, default: true },
    replicas: { kind: kinds.object },
    on_compile: { kind: kinds.func },
  },
  {
    others: {
      adam_beta1: 'beta1',
      adam_beta2: 'beta2',
      adam_epsilon: 'epsilon',
      betas: { why: 'pass beta1 and beta2' },
      eps: 'epsilon',
      lr: { why: 'the rate is given with every step' },
      learning_rate: { why: 'the rate is given with every step' },
      fp16: { why: 'nothing is computed in float16; bf16 takes as little memory', off: [false] },
      torch_compile: 'xla',
    },
  },
);

/** Makes the step that fits the backend. @throws ArgumentError when a compiled one is asked for and cannot be */
export function createStep(target: Trainable, options: StepOptions = {}): TrainingStep {
  STEP_TABLE.check(options);
  const native = tf.getBackend() === 'tensorflow';
  const engine = options.engine ?? 'auto';
  if (engine === 'compiled' && !native) {
    throw new ArgumentError(
      `Training: a compiled step needs the 'tensorflow' backend, and '${tf.getBackend()}' is in use`,
      { backend: tf.getBackend() },
    );
  }
  const { replicas } = options;
  if (replicas && replicated(replicas)) {
    if (engine !== 'eager' && native) return new ReplicatedStep(target, options, replicas);
    const why = native ? "engine is 'eager'" : `the backend is '${tf.getBackend()}'`;
    throw new ArgumentError(
      `Training: ${replicas.workers ? 'workers' : 'data_parallel'} needs a compiled step on the 'tensorflow' backend, and ${why}`,
      { backend: tf.getBackend(), engine },
    );
  }
  return engine === 'eager' || !native ? new EagerStep(target, options) : new CompiledStep(target, options);
}
