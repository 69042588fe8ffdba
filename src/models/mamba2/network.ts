/**
 * The network: embedding, blocks, final norm and head as tf.layers layers, and the forward pass over given weights.
 * This is the one implementation of the model; eager runs pass the layers' own variables, compiled programs pass
 * symbolic ones.
 */
import * as tf from '@tensorflow/tfjs';
import type { FewRows } from '../../kernels/index.js';
import { beginBatch, mixerBatchStep, takesBatches } from '../../layers/decode/few_rows_step.js';
import { Mamba2Block, mixerPart } from '../../layers/block.js';
import { LMHead, TokenEmbedding } from '../../layers/embedding.js';
import type { MixerState } from '../../layers/mixer.js';
import { RMSNorm } from '../../layers/rms_norm.js';
import type { SpecLayer } from '../../layers/base.js';
import { isStored, tensor, type Weight, type Weights, type WeightRole, type WeightSpec } from '../../layers/weights.js';
import { Mamba2Config } from './config.js';

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
  between?: <T extends tf.Tensor>(h: T) => T;
  /** Called with the stream after each block; the tensor is the callee's to clone if it keeps it. */
  onBlock?: (h: tf.Tensor3D, index: number) => void;
}

/** What the blocks give. */
export interface Hidden {
  /** [b, t, d] */
  h: tf.Tensor3D;
  /** Of each layer. */
  states: MixerState[];
  /** h once more where kernels of our own made it, without a norm: as the head takes it. */
  rows?: FewRows;
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
    this.blocks = Array.from(
      { length: config.num_hidden_layers },
      (_, i) => new Mamba2Block({ ...config.mixerArgs(), name: `layers.${i}` }),
    );
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
    return this.namedLayers().flatMap(({ prefix, layer }) =>
      layer.specs().map((spec) => ({ ...spec, name: prefix + spec.name })),
    );
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
  hidden(weights: Weights, embedded: tf.Tensor3D, options: HiddenOptions = {}): Hidden {
    const few =
      options.mergeStep && options.withoutNorm && !options.onBlock ? this.stepOfRows(weights, embedded, options) : null;
    if (few) return few;
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

  /** A decoding step of a few rows by kernels of our own (batch_step.ts), whose states are updated in place. Null where there are none. */
  private stepOfRows(weights: Weights, embedded: tf.Tensor3D, { states, mask, between }: HiddenOptions): Hidden | null {
    const [b, t, d] = embedded.shape;
    const context = states?.[0]?.context?.layers;
    const layers = this.blocks.map((_, i) => part(weights, `backbone.layers.${i}.`));
    const mixers = layers.map(mixerPart);
    if (b === 1 || t !== 1 || !context || !mixers.every((own, i) => takesBatches(this.blocks[i]!.spec, own)))
      return null;
    const norms = [
      ...layers.map((layer) => tensor(layer, 'norm.weight')),
      tensor(part(weights, 'backbone.norm_f.'), 'weight'),
    ];
    let carry = beginBatch(tf.reshape(embedded, [b, d]), norms[0]!, context);
    const after: MixerState[] = [];
    for (const [i, { spec }] of this.blocks.entries()) {
      if (between) carry = { ...carry, stream: between(carry.stream), rows: bordered(carry.rows, between) };
      const out = mixerBatchStep(spec, mixers[i]!, carry, states[i]!, i, norms[i + 1]!, mask);
      if (!out) return null;
      carry = out.carry;
      after.push({ conv: states[i]!.conv, ...out.state });
    }
    // the contexts of all layers were moved on together
    const moved = after.map((state, layer) => ({ ...state, context: { layers: carry.context, layer } }));
    return { h: tf.reshape(carry.stream, [b, 1, d]), states: moved, rows: carry.rows };
  }

  /**
   * Final norm and head of one position, as one kernel where the device has it.
   * @param h the stream after the last block, [b, d] @param rows see Hidden @returns logits [b, v], float32
   */
  normedHead(weights: Weights, h: tf.Tensor2D, rows?: FewRows): tf.Tensor2D {
    const w = part(weights, this.lm_head ? 'lm_head.' : 'backbone.embeddings.');
    const norm = part(weights, 'backbone.norm_f.');
    const matrix = w['weight']!;
    const epsilon = this.config.layer_norm_epsilon;
    const few = rows && isStored(matrix) ? matrix.batch?.({ rows, epsilon }) : null;
    if (few) return few.y;
    const fused = isStored(matrix)
      ? matrix.fused?.({ x: h, norm: { gamma: tensor(norm, 'weight'), groups: 1, epsilon } })
      : null;
    return fused ?? (this.head(weights, this.norm_f.forward(h, norm)) as tf.Tensor2D);
  }

  /** @param h [..., d] @returns logits [..., v], float32 */
  head(weights: Weights, h: tf.Tensor): tf.Tensor {
    return this.lm_head
      ? this.lm_head.forward(h, part(weights, 'lm_head.'))
      : this.embeddings.reverse(h, part(weights, 'backbone.embeddings.'));
  }
}

/** The role of every weight that a checkpoint of this configuration may hold, by name; the head's also where it is tied. */
export function weightRoles(config: Record<string, unknown>): Map<string, WeightRole> {
  const network = new Mamba2Network(new Mamba2Config({ ...config, tie_word_embeddings: false }));
  return new Map(network.weightSpecs().map(({ name, role }) => [name, role]));
}

function bordered({ values, squares }: FewRows, between: NonNullable<HiddenOptions['between']>): FewRows {
  return { values: between(values), ...(squares && { squares: between(squares) }) };
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
