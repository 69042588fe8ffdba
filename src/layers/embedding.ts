/** Token embedding and language-model head. A tied head is the embedding applied in reverse. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import { anything, boolean, orNull } from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';
import { type LayerArgs, single, SpecLayer } from './base.js';
import { checkedArgs, layerTable, positive, size } from './layer_args.js';
import { linear, lookup, type WeightSpec, type Weights } from './weights.js';

export interface TokenEmbeddingArgs extends LayerArgs {
  /** Rows, v: the tokenizer's size, often rounded up. */
  vocabSize: number;
  /** Width, d. */
  hiddenSize: number;
  /** Standard deviation of fresh rows. Default 0.1. */
  initializerRange?: number;
}

const RULES = {
  vocabSize: { kind: size },
  hiddenSize: { kind: size },
  initializerRange: { kind: positive, default: 0.1 },
};
const EMBEDDING_TABLE = layerTable<TokenEmbeddingArgs>('new TokenEmbedding()', RULES);
const HEAD_TABLE = layerTable<TokenEmbeddingArgs>('new LMHead()', RULES);
/** Keyword arguments of call(). tfjs hands `training` and `mask` to every layer of a model that runs; they change nothing here. */
interface CallArgs {
  /** As the tied head: hidden states to logits. Hidden states of three axes are taken so in any case. */
  reverse?: boolean;
  training?: boolean;
  mask?: unknown;
}
const CALL_TABLE = new OptionTable<CallArgs>('TokenEmbedding.call()', {
  reverse: { kind: boolean, default: false },
  training: { kind: orNull(boolean) },
  mask: { kind: anything },
});

/**
 * Ids to vectors: int32 [b, t] -> [b, t, d]; one weight, `weight` [v, d]. Applied to hidden states it is the tied head:
 * [b, t, d] -> logits [b, t, v].
 * @throws ArgumentError for hidden states of another width
 * @example
 * const vectors = new TokenEmbedding({ vocabSize: 10, hiddenSize: 4 }).apply(tf.tensor2d([[1, 2]], [1, 2], 'int32'));
 */
export class TokenEmbedding extends SpecLayer {
  /** @nocollapse */
  static className = 'Mamba2TokenEmbedding';
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly initializerRange: number;

  constructor(args: TokenEmbeddingArgs) {
    super(checkedArgs(EMBEDDING_TABLE, args, ['vocabSize', 'hiddenSize']));
    this.vocabSize = args.vocabSize;
    this.hiddenSize = args.hiddenSize;
    this.initializerRange = args.initializerRange ?? 0.1;
  }

  protected override weightSpecs(): WeightSpec[] {
    return [
      {
        name: 'weight',
        shape: [this.vocabSize, this.hiddenSize],
        role: 'embedding',
        init: { kind: 'normal', std: this.initializerRange },
      },
    ];
  }

  /** @param ids int32 [...] @returns [..., d] */
  forward(ids: tf.Tensor, weights: Weights): tf.Tensor {
    return lookup(ids, weights['weight']!);
  }

  /** @param h [..., d] @returns logits [..., v] */
  reverse(h: tf.Tensor, weights: Weights): tf.Tensor {
    if (h.shape[h.rank - 1] !== this.hiddenSize) {
      throw new ArgumentError(
        `TokenEmbedding: hidden states have shape [${h.shape}], expected [..., ${this.hiddenSize}]`,
        {
          shape: h.shape,
        },
      );
    }
    return linear(h, weights['weight']!);
  }

  override apply(
    inputs: Parameters<tf.layers.Layer['apply']>[0],
    kwargs?: Parameters<tf.layers.Layer['apply']>[1],
  ): ReturnType<tf.layers.Layer['apply']> {
    const out = super.apply(inputs, kwargs);
    // tfjs counts each symbolic use and lets go of one when a model is disposed: the tied head, second use in the same
    // model, would keep the table for ever
    const counted = this as unknown as { _refCount: number };
    const reversed = inputs instanceof tf.SymbolicTensor && (Boolean(kwargs?.['reverse']) || inputs.rank >= 3);
    if (reversed && this.inboundNodes.length > 1) counted._refCount--;
    return out;
  }

  override call(inputs: tf.Tensor | tf.Tensor[], kwargs?: { reverse?: boolean }): tf.Tensor {
    CALL_TABLE.check(kwargs ?? undefined);
    const x = single(inputs);
    // the rank decides: a tf.LayersModel does not hand keyword arguments on to its layers when it runs
    if (kwargs?.reverse || x.rank >= 3) return this.reverse(x, this.weightMap());
    return tf.tidy(() => this.forward(x.dtype === 'int32' ? x : tf.cast(x, 'int32'), this.weightMap()));
  }

  override computeOutputShape(inputShape: tf.Shape | tf.Shape[]): tf.Shape {
    const shape = (Array.isArray(inputShape[0]) ? inputShape[0] : inputShape) as tf.Shape;
    // ids have two axes, hidden states three
    return shape.length >= 3 ? [...shape.slice(0, -1), this.vocabSize] : [...shape, this.hiddenSize];
  }

  override getConfig(): tf.serialization.ConfigDict {
    const { vocabSize, hiddenSize, initializerRange } = this;
    return { ...super.getConfig(), vocabSize, hiddenSize, initializerRange };
  }
}
tf.serialization.registerClass(TokenEmbedding);

/**
 * An untied head: [b, t, d] -> logits [b, t, v]; one weight, `weight` [v, d].
 * @example
 * const logits = new LMHead({ vocabSize: 10, hiddenSize: 4 }).apply(tf.ones([1, 2, 4])) as tf.Tensor; // [1, 2, 10]
 */
export class LMHead extends SpecLayer {
  /** @nocollapse */
  static className = 'Mamba2LMHead';
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly initializerRange: number;

  constructor(args: TokenEmbeddingArgs) {
    super(checkedArgs(HEAD_TABLE, args, ['vocabSize', 'hiddenSize']));
    this.vocabSize = args.vocabSize;
    this.hiddenSize = args.hiddenSize;
    this.initializerRange = args.initializerRange ?? 0.1;
  }

  protected override weightSpecs(): WeightSpec[] {
    return [
      {
        name: 'weight',
        shape: [this.vocabSize, this.hiddenSize],
        role: 'head',
        init: { kind: 'normal', std: this.initializerRange },
      },
    ];
  }

  forward(h: tf.Tensor, weights: Weights): tf.Tensor {
    return linear(h, weights['weight']!);
  }

  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    return this.forward(single(inputs), this.weightMap());
  }

  override computeOutputShape(inputShape: tf.Shape | tf.Shape[]): tf.Shape {
    const shape = (Array.isArray(inputShape[0]) ? inputShape[0] : inputShape) as tf.Shape;
    return [...shape.slice(0, -1), this.vocabSize];
  }

  override getConfig(): tf.serialization.ConfigDict {
    const { vocabSize, hiddenSize, initializerRange } = this;
    return { ...super.getConfig(), vocabSize, hiddenSize, initializerRange };
  }
}
tf.serialization.registerClass(LMHead);
