/** Settings of the rows of a scheduler, as their program takes them, and scores by them. */
import * as tf from '@tensorflow/tfjs';
import type { RowSampling } from '../../generation/decoding_rows.js';
import { bitwiseAnd } from '../../jit/index.js';
import {
  anyOf,
  bestTokens,
  drawToken,
  onlyWhere,
  penalised,
  samplingSettings,
  type Settings,
  SETTINGS_SIZE,
} from './sampling.js';

/** What rows are told besides the settings of sampling. */
const OWN = ['do_sample', 'presence', 'frequency'] as const;

/** Length of the settings of one row. */
export const ROW_SETTINGS = SETTINGS_SIZE + OWN.length;

/** Most end tokens of a row. */
export const MOST_EOS = 16;

/** Settings of a row, [ROW_SETTINGS]; of one that stands still, null. */
export function rowSettings(sampling: RowSampling | null): Float32Array {
  const off = { temperature: 1, top_k: 0, top_p: 1, min_p: null, repetition_penalty: 1 };
  const { do_sample = false, presence_penalty = 0, frequency_penalty = 0 } = sampling ?? {};
  const drawn = do_sample ? sampling! : { ...off, repetition_penalty: sampling?.repetition_penalty ?? 1 };
  const settings = samplingSettings({ ...drawn, do_sample, suppress: [], eos: [], pad_token_id: 0 });
  return Float32Array.of(...settings, Number(do_sample), presence_penalty, frequency_penalty);
}

/** Ids that the prompt has count half in a row's history, and what was chosen counts whole: [v]. */
export function historyOf(ids: readonly number[], prompt_length: number, v: number): Float32Array {
  const counts = new Float32Array(v);
  ids.forEach((id, i) => {
    if (i < prompt_length) counts[id] = 0.5;
  });
  ids.forEach((id, i) => {
    if (i >= prompt_length) counts[id]!++;
  });
  return counts;
}

const own = (settings: tf.Tensor, name: (typeof OWN)[number]): tf.Tensor =>
  tf.slice(settings, [0, SETTINGS_SIZE + OWN.indexOf(name)], [settings.shape[0], 1]); // [b, 1]

/**
 * The id that each row chooses. Traced code only.
 * @param logits [b, v], the bias added @param history [b, v], see historyOf @param uniform [b] @param settings [b, ROW_SETTINGS]
 * @returns int32 [b]; what CHOICE has where no id can be chosen
 */
export function chooseTokens(
  logits: tf.Tensor2D,
  history: tf.Tensor2D,
  uniform: tf.Tensor1D,
  settings: tf.Tensor2D,
): tf.Tensor1D {
  const b = logits.shape[0];
  const sampling = tf.slice(settings, [0, 0], [b, SETTINGS_SIZE]) as Settings;
  const counts = tf.floor(history);
  const taken = tf.add(
    tf.mul(counts, own(settings, 'frequency')),
    tf.mul(tf.cast(tf.greater(counts, 0), 'float32'), own(settings, 'presence')),
  );
  const scores = tf.sub(penalised(logits, history, sampling), taken) as tf.Tensor2D;
  const draws = tf.greater(own(settings, 'do_sample'), 0); // [b, 1]
  return onlyWhere(anyOf(draws), bestTokens(scores), (best) =>
    tf.where(tf.reshape(draws, [b]), drawToken(scores, uniform, sampling), best),
  ) as tf.Tensor1D;
}

/** Scores with -Infinity where a bit is 0. Traced code only. @param mask int32 [b, ceil(v / 32)] */
export function allowed(scores: tf.Tensor2D, mask: tf.Tensor): tf.Tensor2D {
  const [b, v] = scores.shape;
  const words = mask.shape[1]!;
  const bits = tf.tensor3d(
    Int32Array.from({ length: 32 }, (_, i) => 1 << i),
    [1, 1, 32],
    'int32',
  );
  const set = tf.notEqual(bitwiseAnd(tf.reshape(mask, [b, words, 1]), bits), tf.scalar(0, 'int32')); // [b, words, 32]
  const flat = tf.slice(tf.reshape(set, [b, words * 32]), [0, 0], [b, v]);
  return tf.where(flat, scores, tf.fill([b, v], -Infinity)) as tf.Tensor2D;
}

/** Words of a mask over so many ids. */
export const maskWords = (v: number): number => Math.ceil(v / 32);
