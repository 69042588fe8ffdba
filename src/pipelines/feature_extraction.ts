import type { Tensor } from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { Loaded } from './load.js';

/** What the pipeline asks of a model: its backbone's forward pass. */
export interface FeatureModel {
  readonly backbone: {
    forward(inputs: { input_ids: number[][]; attention_mask: number[][]; use_cache: boolean }): {
      /** [b, t, d] */
      last_hidden_state: Tensor;
    };
  };
  dispose(): void;
}

/** Options of a call. */
export interface FeatureExtractionOptions {
  /** 'none' (default) gives a vector per token; 'mean' their mean; 'last' that of the last token, which has seen them all. */
  pooling?: 'none' | 'mean' | 'last';
  /** Scales pooled vectors to length 1. Default false. */
  normalize?: boolean;
  /** Texts that are run together. Default 1. */
  batch_size?: number;
}

/** pipeline('feature-extraction', …): the hidden states after the last norm. */
export interface FeatureExtractionPipeline {
  /** Per text and token a vector of hidden_size numbers; one text gives a list of one. */
  (texts: string | readonly string[], options?: FeatureExtractionOptions & { pooling?: 'none' }): Promise<number[][][]>;
  /** Per text one vector. */
  (
    texts: string | readonly string[],
    options: FeatureExtractionOptions & { pooling: 'mean' | 'last' },
  ): Promise<number[][]>;
  readonly task: 'feature-extraction';
  readonly model: FeatureModel;
  readonly tokenizer: Tokenizer;
  /** Disposes of the model, if the pipeline loaded it. */
  dispose(): void;
}

/** Makes the function that pipeline('feature-extraction', …) returns. */
export function featureExtractionPipeline({
  model,
  tokenizer,
  owned,
}: Loaded<FeatureModel>): FeatureExtractionPipeline {
  const call = async (
    input: string | readonly string[],
    options: FeatureExtractionOptions = {},
  ): Promise<number[][][] | number[][]> => {
    const texts = typeof input === 'string' ? [input] : input;
    const pooling = options.pooling ?? 'none';
    if (!['none', 'mean', 'last'].includes(pooling)) {
      throw new ArgumentError(`pooling is ${JSON.stringify(pooling)}; expected 'none', 'mean' or 'last'.`, {
        option: 'pooling',
        got: pooling,
      });
    }
    const size = options.batch_size ?? 1;
    const tokens: number[][][] = [];
    for (let at = 0; at < texts.length; at += size) {
      tokens.push(...(await features(model, tokenizer, texts.slice(at, at + size), at)));
    }
    if (pooling === 'none') return tokens;
    return tokens.map((rows) => {
      const pooled = pooling === 'last' ? rows.at(-1)! : mean(rows);
      return options.normalize ? normalized(pooled) : pooled;
    });
  };
  const parts = { task: 'feature-extraction' as const, model, tokenizer, dispose: () => owned && model.dispose() };
  return Object.assign(call, parts) as unknown as FeatureExtractionPipeline;
}

/** The vectors of a batch, those of padding left out. */
async function features(
  model: FeatureModel,
  tokenizer: Tokenizer,
  texts: readonly string[],
  first: number,
): Promise<number[][][]> {
  const batch = await tokenizer.batch_encode(texts);
  const empty = batch.attention_mask.findIndex((mask) => !mask.includes(1));
  if (empty >= 0) {
    throw new ArgumentError(`Text ${first + empty} is empty: it has no tokens to take features of.`, {
      index: first + empty,
    });
  }
  const { last_hidden_state } = model.backbone.forward({ ...batch, use_cache: false });
  try {
    const [, length, width] = last_hidden_state.shape as [number, number, number];
    const values = (await last_hidden_state.data()) as Float32Array;
    return batch.attention_mask.map((mask, b) => {
      const at = (t: number): number => (b * length + t) * width;
      return mask.flatMap((real, t) => (real ? [Array.from(values.subarray(at(t), at(t) + width))] : []));
    });
  } finally {
    last_hidden_state.dispose();
  }
}

function mean(rows: readonly number[][]): number[] {
  return rows[0]!.map((_, i) => rows.reduce((sum, row) => sum + row[i]!, 0) / rows.length);
}

function normalized(vector: readonly number[]): number[] {
  const length = Math.hypot(...vector);
  return vector.map((v) => v / (length || 1));
}
