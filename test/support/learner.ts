/** A model that learns in a few steps and starts the same every time, and what it learns from. */
import * as tf from '@tensorflow/tfjs';
import { Mamba2Config, Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { LEARNER } from './tiny_model.js';

/** A LEARNER whose weights are drawn from fixed seeds, large enough to be learned from at once. */
export function learner(): Mamba2ForCausalLM {
  const model = new Mamba2ForCausalLM(new Mamba2Config(LEARNER));
  let seed = 1;
  for (const [name, v] of Object.entries(model.weights.all())) {
    const variable = v as tf.Variable;
    if (variable.rank > 1) tf.tidy(() => variable.assign(tf.randomNormal(variable.shape, 0, 0.2, 'float32', seed++)));
    else if (name.endsWith('dt_bias')) tf.tidy(() => variable.assign(tf.fill(variable.shape, -2)));
  }
  return model;
}

/** Rows of which more or less counts, in a number that no batch divides: the last batch of an epoch has fewer rows than replicas. */
export const unevenExamples = Array.from({ length: 29 }, (_, i) => {
  const input_ids = Array.from({ length: 8 }, (_, j) => (i * 3 + j) % 31);
  return { input_ids, labels: input_ids.map((id, j) => (j < i % 5 ? -100 : id)) };
});
