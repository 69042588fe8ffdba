/** A network without its head, as a tfjs model and as Hugging Face's forward(). */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import { checkMemory } from '../base/memory.js';
import { atOnce, inPieces, type Pieces } from '../base/pieces.js';
import { type Compaction, idGrid, type IdGrid, type IdsLike, readMask, reorder } from '../engine/inputs.js';
import type { NetworkWeights } from '../engine/network_weights.js';
import { hiddenOf, type LayerState, type RecurrentLM } from '../engine/recurrent_lm.js';
import { RecurrentCache } from '../engine/states/cache.js';
import { onGpu } from '../runtime/index.js';
import { BACKBONE_TABLE } from './forward_options.js';

/** What forward() takes. @typeParam C the architecture's cache */
export interface BackboneInputs<C extends RecurrentCache = RecurrentCache> {
  /** Token ids [b, t]. Exactly one of input_ids and inputs_embeds. */
  input_ids?: IdsLike;
  /** Embedded tokens [b, t, d], float32. */
  inputs_embeds?: tf.Tensor3D;
  /** 1 for real tokens, 0 for padding, [b, t] or longer (the last t columns count). Any pattern; exact on both sides. */
  attention_mask?: IdsLike;
  /** State to go on from; advanced in place. */
  cache?: C;
  /** Return a cache (default true; a given cache is always advanced and returned). */
  use_cache?: boolean;
  /** Return the stream after each block and the normed one last, as transformers does. */
  output_hidden_states?: boolean;
}

export interface BackboneOutputs<C extends RecurrentCache = RecurrentCache> {
  /** [b, t, d]; meaningless at padded positions */
  last_hidden_state: tf.Tensor3D;
  cache?: C;
  hidden_states?: tf.Tensor3D[];
}

/** What forward() works on after its inputs were checked. */
interface Prepared {
  embedded: tf.Tensor3D;
  padding: Compaction | null;
}

/** What a pass over the layers gives: new tensors. */
type Run = {
  last: tf.Tensor3D;
  states: Record<string, tf.Tensor>[];
  kept: tf.Tensor3D[];
  t: number;
};

/** Embedding, blocks and final norm over the weights of a causal model, or over weights of its own. */
export class Backbone<N extends RecurrentLM = RecurrentLM, C extends RecurrentCache = RecurrentCache> {
  /** Whether padding without a mask was told of. */
  private warned = false;

  constructor(readonly weights: NetworkWeights<N>) {}

  get network(): N {
    return this.weights.network;
  }

  get config(): N['config'] {
    return this.network.config;
  }

  /** A cache to be filled by a first call; architectures have their own class of it. */
  protected emptyCache(): C {
    return new RecurrentCache() as C;
  }

  /** The same layers as a tf.LayersModel: ids int32 [b, t] -> [b, t, d]. predict, summary, getWeights and save work. */
  get layersModel(): tf.LayersModel {
    return this.weights.layersModels().backbone;
  }

  get_input_embeddings(): tf.Tensor {
    return this.weights.all()[this.network.names.embedding] as tf.Tensor;
  }

  private prepare(inputs: BackboneInputs<C>): Prepared {
    const { input_ids, inputs_embeds, attention_mask } = inputs;
    if ((input_ids === undefined) === (inputs_embeds === undefined)) {
      throw new ArgumentError(
        `forward: got ${input_ids === undefined ? 'neither' : 'both'} of input_ids and inputs_embeds, expected exactly one`,
        {},
      );
    }
    if (inputs_embeds) {
      const [b, t, d] = inputs_embeds.shape;
      if (inputs_embeds.rank !== 3 || d !== this.config.hidden_size || t === 0) {
        throw new ArgumentError(
          `inputs_embeds: has shape [${inputs_embeds.shape}], expected [b, t, ${this.config.hidden_size}]`,
          {},
        );
      }
      const padding = readMask(attention_mask, b, t);
      return { embedded: padding?.order ? reorder(inputs_embeds, padding.order) : tf.clone(inputs_embeds), padding };
    }
    const ids = idGrid(input_ids!, this.config.vocab_size);
    if (attention_mask === undefined) this.warnOfPadding(ids);
    this.checkRoom(ids);
    const padding = readMask(attention_mask, ids.batch, ids.length);
    const values = padding?.order ? padding.order.map((from) => ids.values[from]!) : ids.values;
    const tensor = tf.tensor2d(values, [ids.batch, ids.length], 'int32');
    return { embedded: this.network.embed(this.weights.all(), tensor), padding };
  }

  /** Of a block the stream, what the projection in gives, and what the mixer makes of it exist at a time. */
  private checkRoom({ batch, length }: IdGrid): void {
    const bytes = batch * length * 4 * 6 * this.config.hidden_size;
    if (!onGpu())
      checkMemory(
        bytes,
        `forward() of ${batch} × ${length} ids`,
        'Pass fewer rows at once, or shorter ones with a cache.',
      );
  }

  /** As transformers does (warn_if_padding_and_no_attention_mask): forward() takes ids as they are, and says once where they look padded. */
  private warnOfPadding({ batch, length, values }: IdGrid): void {
    const pad = this.config.pad_token_id;
    if (this.warned || pad === null) return;
    const ends = Array.from({ length: batch }, (_, i) => [values[i * length], values[(i + 1) * length - 1]]).flat();
    const { eos_token_id, bos_token_id } = this.config.to_dict();
    if (!ends.includes(pad) || [eos_token_id, bos_token_id].flat().includes(pad)) return;
    this.warned = true;
    process.emitWarning(
      `forward() got rows that begin or end with pad_token_id ${pad} and no attention_mask: they are read as text. Pass ` +
        `attention_mask, 0 where a row is padded.`,
      { code: 'MAMBA2_PADDING' },
    );
  }

  /**
   * Runs the backbone. Outputs are new tensors, the caller's to dispose (a tidy around the call does not dispose a cache
   * that was passed in).
   *
   * @throws ArgumentError for ids outside the vocabulary, a mask of the wrong size, both or neither of the inputs, or a
   *   cache of another batch size or another model
   */
  forward(inputs: BackboneInputs<C>): BackboneOutputs<C> {
    BACKBONE_TABLE.checkObject(inputs);
    BACKBONE_TABLE.check(inputs);
    return this.outputs(
      inputs,
      tf.tidy(() => atOnce(this.work(inputs))),
    );
  }

  /**
   * As forward(), with the event loop running between layers: weights do not change meanwhile. No tidy knows of the outputs.
   * @throws as forward(); DisposedError where the model or the cache is disposed of meanwhile
   */
  async forwardAsync(inputs: BackboneInputs<C>): Promise<BackboneOutputs<C>> {
    BACKBONE_TABLE.checkObject(inputs);
    BACKBONE_TABLE.check(inputs);
    const alive = (): void => void [this.weights.all(), inputs.cache?.layers];
    return this.weights.turns.take(async () => {
      alive();
      const keeps = ({ last, states, kept }: Run): tf.Tensor[] => [
        last,
        ...states.flatMap((layer) => Object.values(layer)),
        ...kept,
      ];
      return this.outputs(inputs, await inPieces(this.work(inputs), { alive, keeps }));
    });
  }

  private keepsCache({ cache, use_cache }: BackboneInputs<C>): boolean {
    return cache !== undefined || (use_cache ?? this.config.use_cache);
  }

  private *work(inputs: BackboneInputs<C>): Pieces<Run> {
    const { cache } = inputs;
    const kept: tf.Tensor3D[] = [];
    const weights = this.weights.all();
    const { embedded, padding } = this.prepare(inputs);
    const [b, t] = embedded.shape;
    cache?.check(this.network, b);
    const restore = (x: tf.Tensor3D): tf.Tensor3D => (padding?.back ? reorder(x, padding.back) : tf.clone(x));
    const onBlock = inputs.output_hidden_states ? (h: tf.Tensor3D): void => void kept.push(restore(h)) : undefined;
    const mask = padding ? tf.tensor2d(padding.mask, [b, t]) : undefined;
    const before = cache?.layers.map((values): LayerState => ({ values }));
    const { h, states } = yield* hiddenOf(this.network, weights, embedded, { states: before, mask, onBlock });
    const carried = this.keepsCache(inputs) ? states.map(({ values }) => ({ ...values })) : [];
    return { last: restore(h), states: carried, kept, t };
  }

  private outputs(inputs: BackboneInputs<C>, { last, states, kept, t }: Run): BackboneOutputs<C> {
    const outputs: BackboneOutputs<C> = { last_hidden_state: last };
    if (this.keepsCache(inputs)) {
      outputs.cache = inputs.cache ?? this.emptyCache();
      outputs.cache.advance(states, t);
    }
    // in the order of transformers: the output of every block, then the normed stream
    if (inputs.output_hidden_states) outputs.hidden_states = [...kept, tf.clone(last)];
    return outputs;
  }

  dispose(): void {
    this.weights.dispose();
  }
}
