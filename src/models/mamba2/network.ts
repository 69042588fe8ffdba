/**
 * The network: embedding, blocks, final norm and head as tf.layers layers, and the forward pass over given weights.
 * This is the one implementation of the model; eager runs pass the layers' own variables, compiled programs pass
 * symbolic ones.
 */
import type * as tf from '@tensorflow/tfjs';
import { Mamba2Block } from '../../layers/block.js';
import { LMHead, TokenEmbedding } from '../../layers/embedding.js';
import type { MixerState } from '../../layers/mixer.js';
import { RMSNorm } from '../../layers/rms_norm.js';
import type { SpecLayer } from '../../layers/base.js';
import { isStored, tensor, type Weight, type Weights, type WeightSpec } from '../../layers/weights.js';
import type { Mamba2Config } from './config.js';

/** A layer and the prefix of its weights' names in a checkpoint (spec C.1). */
export interface NamedLayer {
  prefix: string;
  layer: SpecLayer;
}

export interface HiddenOptions {
  /** See MixerOptions.mergeStep. */
  mergeStep?: boolean;
  /** Tokens per chunk of the scan, in place of the configuration's. */
  chunkSize?: number;
  /** See MixerOptions.bf16Scan. */
  bf16Scan?: boolean;
  /** Leave out the final norm. */
  withoutNorm?: boolean;
  /** One state per layer; zeros when absent. Not disposed. */
  states?: readonly MixerState[];
  /** [b, t]; see MixerOptions.mask */
  mask?: tf.Tensor2D;
  /** [b, t]; see MixerOptions.segments */
  segments?: tf.Tensor2D;
  /** The stream passes through it before and after each block. */
  between?: (h: tf.Tensor3D) => tf.Tensor3D;
  /** Called with the stream after each block; the tensor is the callee's to clone if it keeps it. */
  onBlock?: (h: tf.Tensor3D, index: number) => void;
}

export class Mamba2Network {
  readonly embeddings: TokenEmbedding;
  readonly blocks: readonly Mamba2Block[];
  readonly norm_f: RMSNorm;
  /** Absent when the head is tied to the embedding. */
  readonly lm_head: LMHead | null;

  constructor(readonly config: Mamba2Config) {
    const { vocab_size: vocabSize, hidden_size: hiddenSize, initializer_range: initializerRange } = config;
    const embedding = { vocabSize, hiddenSize, initializerRange };
    this.embeddings = new TokenEmbedding({ ...embedding, name: 'embeddings' });
    this.blocks = Array.from({ length: config.num_hidden_layers }, (_, i) => new Mamba2Block({ ...config.mixerArgs(), name: `layers.${i}` }));
    this.norm_f = new RMSNorm({ size: hiddenSize, epsilon: config.layer_norm_epsilon, name: 'norm_f' });
    this.lm_head = config.tie_word_embeddings ? null : new LMHead({ ...embedding, name: 'lm_head' });
  }

  /** Every layer with the prefix of its weights, in the checkpoint's order. */
  namedLayers(): NamedLayer[] {
    const layers: NamedLayer[] = [
      { prefix: 'backbone.embeddings.', layer: this.embeddings },
      ...this.blocks.map((layer, i) => ({ prefix: `backbone.layers.${i}.`, layer })),
      { prefix: 'backbone.norm_f.', layer: this.norm_f },
    ];
    return this.lm_head ? [...layers, { prefix: 'lm_head.', layer: this.lm_head }] : layers;
  }

  /** Names, shapes and initialisers of all weights, by their names in a checkpoint. */
  weightSpecs(): WeightSpec[] {
    return this.namedLayers().flatMap(({ prefix, layer }) => layer.specs().map((spec) => ({ ...spec, name: prefix + spec.name })));
  }

  /** @param ids int32 [b, t] @returns [b, t, d] */
  embed(weights: Weights, ids: tf.Tensor2D): tf.Tensor3D {
    return this.embeddings.forward(ids, part(weights, 'backbone.embeddings.')) as tf.Tensor3D;
  }

  /**
   * Blocks and final norm.
   * @param weights all weights by checkpoint name @param embedded [b, t, d]
   * @returns the normed stream [b, t, d] and the new state of each layer, all new tensors
   */
  hidden(weights: Weights, embedded: tf.Tensor3D, options: HiddenOptions = {}): { h: tf.Tensor3D; states: MixerState[] } {
    const states: MixerState[] = [];
    let h = embedded;
    for (const [i, block] of this.blocks.entries()) {
      if (options.between) h = options.between(h);
      const out = block.forward(h, part(weights, `backbone.layers.${i}.`), {
        state: options.states?.[i],
        mask: options.mask,
        segments: options.segments,
        chunkSize: options.chunkSize,
        bf16Scan: options.bf16Scan,
        mergeStep: options.mergeStep,
      });
      if (h !== embedded && !options.onBlock) h.dispose();
      h = out.y;
      states.push(out.state);
      options.onBlock?.(h, i);
    }
    if (options.between) h = options.between(h);
    if (options.withoutNorm) return { h, states };
    const normed = this.norm_f.forward(h, part(weights, 'backbone.norm_f.')) as tf.Tensor3D;
    return { h: normed, states };
  }

  /**
   * Final norm and head of one position, as one kernel where the device has it.
   * @param h the stream after the last block, [1, d] @returns logits [1, v], float32
   */
  normedHead(weights: Weights, h: tf.Tensor2D): tf.Tensor2D {
    const w = part(weights, this.lm_head ? 'lm_head.' : 'backbone.embeddings.');
    const norm = part(weights, 'backbone.norm_f.');
    const matrix = w['weight']!;
    const epsilon = this.config.layer_norm_epsilon;
    const fused = isStored(matrix) ? matrix.fused?.({ x: h, norm: { gamma: tensor(norm, 'weight'), groups: 1, epsilon } }) : null;
    return fused ?? (this.head(weights, this.norm_f.forward(h, norm)) as tf.Tensor2D);
  }

  /** @param h [..., d] @returns logits [..., v], float32 */
  head(weights: Weights, h: tf.Tensor): tf.Tensor {
    return this.lm_head ? this.lm_head.forward(h, part(weights, 'lm_head.')) : this.embeddings.reverse(h, part(weights, 'backbone.embeddings.'));
  }
}

const groups = new WeakMap<Weights, Map<string, Weights>>();

/** The weights below a prefix, without it. Grouped once per record. */
function part(weights: Weights, prefix: string): Weights {
  let grouped = groups.get(weights);
  if (!grouped) {
    const made = new Map<string, Record<string, Weight>>();
    for (const [name, weight] of Object.entries(weights)) {
      const cut = /^(backbone\.(?:layers\.\d+|embeddings|norm_f)|lm_head)\./.exec(name)?.[0] ?? '';
      let group = made.get(cut);
      if (!group) made.set(cut, (group = {}));
      group[name.slice(cut.length)] = weight;
    }
    grouped = made;
    groups.set(weights, grouped);
  }
  return grouped.get(prefix) ?? {};
}
