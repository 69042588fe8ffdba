/** Reading prompts, as a function of a program. */
import * as tf from '@tensorflow/tfjs';
import { outlineBorder } from '../../jit/index.js';
import type { Weights } from '../../layers/weights.js';
import { hiddenOf, type RecurrentLM } from '../recurrent_lm.js';
import type { DecodingProgramOptions, ProgramFunctions, ProgramModel } from './decoding_program.js';
import type { StateAccess } from './program_states.js';
import { traced } from './program_weights.js';

export interface PrefillFunction {
  readonly model: ProgramModel;
  /** Rows. */
  readonly b: number;
  /** Tokens. */
  readonly t: number;
  /** Where the states of the rows lie. */
  readonly access: StateAccess;
  /** The variable of their logits, [b, v]. */
  readonly logits: string;
  readonly options: DecodingProgramOptions;
}

/**
 * Logits of rows whose prompt ends in a segment; those of others stay.
 * @param h [b, t, d] @param ends float32 [b, t], 1 at a row's last token, if that lies in this segment @param before [b, v]
 * @returns `fed`: how many rows end here. As an output it makes a call wait for the device, so that an abort between segments is seen in time
 */
export function logitsAtEnds(
  network: RecurrentLM,
  w: Weights,
  h: tf.Tensor3D,
  ends: tf.Tensor,
  before: tf.Tensor,
): { fed: tf.Tensor; next: tf.Tensor } {
  const [b, t] = h.shape;
  const last = tf.reshape(tf.matMul(tf.reshape(ends, [b, 1, t]), h), [b, -1]) as tf.Tensor2D;
  const ended = tf.sum(ends, 1, true); // [b, 1]
  return { fed: tf.sum(ended), next: tf.where(tf.greater(ended, 0), network.head(w, last), before) };
}

/** Declares the function that reads t tokens of each of b rows, those that are masked left out. */
export function definePrefill(
  program: Pick<ProgramFunctions, 'define'>,
  name: string,
  { b, t, ...of }: PrefillFunction,
): void {
  const { model, access, options } = of;
  const { network, storages, pack } = model;
  const bf16Scan =
    options.bf16Scan && [...storages.values()].some((storage) => storage.variables['']?.dtype === 'bfloat16');
  program.define(
    name,
    {
      ids: { shape: [b, t], dtype: 'int32' },
      mask: { shape: [b, t], dtype: 'float32' },
      ends: { shape: [b, t], dtype: 'float32' },
    },
    function* ({ ids, mask, ends }, vars) {
      const w = traced(storages, pack, vars);
      const { h, states } = yield* hiddenOf(network, w, network.embed(w, ids as tf.Tensor2D), {
        states: access.read(vars),
        mask: mask as tf.Tensor2D,
        chunkSize: options.chunkSize,
        bf16Scan,
        // see stepOf()
        ...((options.layered || options.sums !== 'inside') && { between: outlineBorder }),
      });
      const { fed, next } = logitsAtEnds(network, w, h, ends!, vars[of.logits]!);
      return { outputs: { fed, hidden: h }, assign: { ...access.assign(states), [of.logits]: next } };
    },
    { tensorflowProducts: options.kernels ?? true, compileOutlined: options.layered },
  );
}
