/**
 * The network: embedding, blocks, final norm and head as tf.layers layers, and the forward pass over given weights.
 * This is the one implementation of the model; eager runs pass the layers' own variables, compiled programs pass
 * symbolic ones.
 */
import type * as tf from '@tensorflow/tfjs';
import { atOnce, type Pieces } from '../../base/pieces.js';
import type { FewRows } from '../../kernels/index.js';
import { fewRowsStep, type StepBlock } from '../../layers/decode/few_rows_step.js';
import { layerSteps } from '../../layers/decode/layer_step.js';
import { networkSteps } from '../../layers/decode/network_steps.js';
import { Mamba2Block, mixerPart } from '../../layers/block.js';
import { LMHead, TokenEmbedding } from '../../layers/embedding.js';
import type { MixerState } from '../../layers/mixer.js';
import { RMSNorm } from '../../layers/rms_norm.js';
import { isStored, tensor, type Weight, type WeightRole, type Weights, type WeightSpec } from '../../layers/weights.js';
import type {
  DeviceSteps,
  Hidden,
  HiddenOptions,
  LayerState,
  NamedLayer,
  RecurrentLM,
  StateSpec,
  TensorParallel,
} from '../../engine/recurrent_lm.js';
import { stateSpecs } from './cache.js';
import { Mamba2Config } from './config.js';
import { tensorParallel } from './tensor_parallel.js';

/** A stream of a few rows in the form in which kernels of our own hand it on. */
interface Carried extends Hidden {
  handover?: FewRows;
}

/** A layer's states as its mixer takes them. */
function mixerState({ values, stored, within }: LayerState): MixerState {
  return {
    conv: values['conv'] as tf.Tensor3D,
    ssm: values['ssm'] as tf.Tensor4D,
    ...(stored && { stored: stored['ssm'] }),
    ...(within && { context: within['conv'] as MixerState['context'] }),
  };
}

function layerState({ conv, ssm, stored, context }: MixerState): LayerState {
  return {
    values: { conv, ssm },
    ...(stored && { stored: { ssm: stored } }),
    ...(context && { within: { conv: context } }),
  };
}

export class Mamba2Network implements RecurrentLM<Mamba2Config> {
  readonly name = 'mamba2';
  readonly names = { embedding: 'backbone.embeddings.weight', head: 'lm_head.weight' };
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

  stateSpecs(): readonly StateSpec[] {
    return stateSpecs(this.config);
  }

  fingerprint(): Record<string, string> {
    return this.config.fingerprint();
  }

  withConfig(changes: Readonly<Record<string, unknown>>): Mamba2Network {
    return new Mamba2Network(Mamba2Config.from_dict({ ...this.config.to_dict(), ...changes }));
  }

  tensorParallel(devices: number): TensorParallel {
    return tensorParallel(this, devices);
  }

  connect(ids: tf.SymbolicTensor): { hidden: tf.SymbolicTensor; logits: tf.SymbolicTensor } {
    let h = this.embeddings.apply(ids) as tf.SymbolicTensor;
    for (const block of this.blocks) h = block.apply(h) as tf.SymbolicTensor;
    const hidden = this.norm_f.apply(h) as tf.SymbolicTensor;
    const head = this.lm_head ?? this.embeddings;
    return { hidden, logits: head.apply(hidden, this.lm_head ? undefined : { reverse: true }) as tf.SymbolicTensor };
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
    return atOnce(this.hiddenInPieces(weights, embedded, options));
  }

  /** As hidden(), with a yield between blocks. */
  *hiddenInPieces(weights: Weights, embedded: tf.Tensor3D, options: HiddenOptions = {}): Pieces<Hidden> {
    const { aroundBlock, onBlock } = options;
    const [from, to] = options.layers ?? [0, this.blocks.length];
    const steps = (options.withoutNorm || to < this.blocks.length) && !onBlock && !aroundBlock && from < to;
    const few = steps ? this.stepOfLayers(weights, embedded, options, from, to) : null;
    if (few) return few;
    const states: LayerState[] = [];
    let h = embedded;
    for (const [i, block] of this.blocks.entries()) {
      if (i < from || i >= to) continue;
      if (i > from) yield;
      if (options.between) h = options.between(h);
      const prefix = `backbone.layers.${i}.`;
      const state = options.states?.[i];
      const run = (x: tf.Tensor3D, all: Weights): ReturnType<Mamba2Block['forward']> =>
        block.forward(x, part(all, prefix), {
          state: state && mixerState(state),
          mask: options.mask,
          segments: options.segments,
          chunkSize: options.chunkSize,
          bf16Scan: options.bf16Scan,
          mergeStep: options.mergeStep,
        });
      let next: tf.Tensor3D;
      if (aroundBlock) next = aroundBlock((x, all) => run(x, all).y, h, prefix);
      else {
        const out = run(h, weights);
        next = out.y;
        states.push(layerState(out.state));
      }
      if (h !== embedded && !onBlock && !aroundBlock) h.dispose();
      h = next;
      onBlock?.(h, i);
    }
    if (options.between) h = options.between(h);
    if (options.withoutNorm || to < this.blocks.length) return { h, states };
    const normed = this.norm_f.forward(h, part(weights, 'backbone.norm_f.')) as tf.Tensor3D;
    return { h: normed, states };
  }

  /** A decoding step by kernels of our own for layers, all of which may hand the stream on to the head. Null where there are none. */
  private stepOfLayers(
    weights: Weights,
    embedded: tf.Tensor3D,
    options: HiddenOptions,
    from: number,
    to: number,
  ): Carried | null {
    const blocks = this.stepBlocks(weights, from, to);
    const { mask, mergeStep, between } = options;
    const request = { states: options.states?.slice(from, to).map(mixerState), mask, mergeStep, between };
    const own = layerSteps(blocks, embedded, request);
    if (own) return { h: own.h, states: own.states.map(layerState) };
    if (blocks.length < this.blocks.length) return null; // those hand on what a head takes
    const out = fewRowsStep(blocks, tensor(part(weights, 'backbone.norm_f.'), 'weight'), embedded, request);
    return out && { h: out.h, states: out.states.map(layerState), handover: out.rows };
  }

  /** A block of each layer with its weights, as steps take them. */
  private stepBlocks(weights: Weights, from: number, to: number): StepBlock[] {
    return this.blocks.slice(from, to).map(({ spec }, i) => {
      const own = part(weights, `backbone.layers.${from + i}.`);
      return { spec, gamma: tensor(own, 'norm.weight'), weights: mixerPart(own) };
    });
  }

  /** Steps of so many rows that are prepared once, on WebAssembly or WebGPU; null where the backend or the form of the weights has none. */
  deviceSteps(weights: Weights, batch: number): DeviceSteps | null {
    const embedding = weights[this.names.embedding]!;
    const given = {
      blocks: this.stepBlocks(weights, 0, this.blocks.length),
      ...{ embedding, head: this.lm_head ? weights[this.names.head]! : embedding },
      gamma: tensor(part(weights, 'backbone.norm_f.'), 'weight'),
      epsilon: this.config.layer_norm_epsilon,
    };
    return networkSteps(given, batch);
  }

  /**
   * Final norm and head of one position, as one kernel where the device has it.
   * @param h the stream after the last block, [b, d] @param handover see Hidden @returns logits [b, v], float32
   */
  normedHead(weights: Weights, h: tf.Tensor2D, handover?: unknown): tf.Tensor2D {
    const rows = handover as Carried['handover'];
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
  const network = new Mamba2Network(Mamba2Config.from_dict({ ...config, tie_word_embeddings: false }));
  return new Map(network.weightSpecs().map(({ name, role }) => [name, role]));
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
