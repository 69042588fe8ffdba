/**
 * What a network of recurrent blocks is to those who run it: the engines that generate, adapters and training. They know
 * weights by the names of the checkpoint, states by the names of `stateSpecs()`, and nothing else of an architecture.
 */
import type { ArrayPart } from '../base/array_parts.js';
import type { Pieces } from '../base/pieces.js';
import type * as tf from '@tensorflow/tfjs';
import type { SpecLayer } from '../layers/base.js';
import type { StepChoice } from '../layers/decode/network_steps.js';
import type { Weights, WeightSpec } from '../layers/weights.js';

/** The configuration of a causal language model, in the keys of config.json; an architecture has more of them. */
export interface LMConfig {
  readonly model_type: string;
  /** Rows of the embedding, v; may be more than the tokenizer has. */
  readonly vocab_size: number;
  /** d */
  readonly hidden_size: number;
  /** Recurrent layers, each with the states of stateSpecs(). */
  readonly num_hidden_layers: number;
  readonly tie_word_embeddings: boolean;
  readonly pad_token_id: number | null;
  /** Whether forward() returns a cache where nothing is said. */
  readonly use_cache: boolean;
  /** A plain record with the keys of config.json. */
  to_dict(): Record<string, unknown>;
}

/** A layer and the prefix of its weights' names in a checkpoint. */
export interface NamedLayer {
  prefix: string;
  layer: SpecLayer;
}

/** One of the tensors that a layer carries from token to token. */
export interface StateSpec {
  /** Within its layer: files of states name it `layers.I.NAME`. */
  readonly name: string;
  /** Of one row, without the batch axis. Where a size is 0 there is nothing to carry, and programs keep nothing. */
  readonly shape: readonly number[];
  /**
   * How a program keeps it: a variable for each layer [b, ...shape], or one for all layers [b, layers, ...shape]. The
   * latter is for small states that are moved on together: one copy, and not one a layer.
   */
  readonly keptPer: 'layer' | 'model';
  /** Whether a program may store it in bfloat16 between calls (the option state_dtype). Only where kept per layer. */
  readonly bfloat16?: boolean;
}

/** The states of one layer, by the names of its specs. */
export interface LayerState {
  /** [b, ...shape], float32 */
  readonly values: Readonly<Record<string, tf.Tensor>>;
  /** The same where it is stored in another type, of which the value is the conversion. For kernels that take it so, and give it. */
  readonly stored?: Readonly<Record<string, tf.Tensor>>;
  /** Where a value lies that is kept per model: all layers [b, layers, ...shape], and which this is. A network may give it moved on. */
  readonly within?: Readonly<Record<string, { layers: tf.Tensor; layer: number }>>;
}

/** Runs one block on the stream, [b, t, d] to [b, t, d]. @param weights all weights by checkpoint name */
export type BlockRun = (h: tf.Tensor3D, weights: Weights) => tf.Tensor3D;

/** How the blocks are run. What is called a hint changes speed and rounding only; an architecture may pass over it. */
export interface HiddenOptions {
  /** One per layer; zeros when absent. Not disposed. */
  states?: readonly LayerState[];
  /**
   * [b, t] of 0 and 1: masked positions change no state, and their outputs mean nothing. With states, the masked
   * positions of a row follow its real ones.
   */
  mask?: tf.Tensor2D;
  /** Number of the document that each position belongs to, [b, t], each in one run: nothing passes from one to the next. */
  segments?: tf.Tensor2D;
  /** Only these layers, from the first up to but not including the second; the final norm comes after the last of all. States are of all layers. */
  layers?: readonly [from: number, to: number];
  /** Leave out the final norm. */
  withoutNorm?: boolean;
  /** The stream passes through it before and after each block. */
  between?: <T extends tf.Tensor>(h: T) => T;
  /** Called with the stream after each block; the tensor is the callee's to clone if it keeps it. */
  onBlock?: (h: tf.Tensor3D, index: number) => void;
  /**
   * Runs each block in another way, as training does that computes it again for the gradients. Not together with states.
   * @param prefix of the names of the block's weights
   */
  aroundBlock?: (run: BlockRun, h: tf.Tensor3D, prefix: string) => tf.Tensor3D;
  /** Hint: a single token's work is put together, for GPUs. */
  mergeStep?: boolean;
  /** Hint: tokens per chunk of a scan. */
  chunkSize?: number;
  /** Hint: scan in bfloat16, for GPUs. */
  bf16Scan?: boolean;
}

/** What the blocks give. */
export interface Hidden {
  /** [b, t, d] */
  h: tf.Tensor3D;
  /** Of each layer, new tensors; empty after aroundBlock. */
  states: LayerState[];
  /** What normedHead() of the same network takes besides h: the stream in a form of its own. */
  handover?: unknown;
}

/** Decoding steps of one row or several as work that is prepared once, in places of its own, where the rows' states and scores lie meanwhile. */
export interface DeviceSteps {
  /** Dispatches of a token of each row, on a GPU. */
  readonly dispatches?: number;
  /** To be waited for before they are used. Refused with a DeviceError where the device does not take them. */
  readonly ready: Promise<void>;
  /** Throws a DeviceError where the device is gone. */
  check?(): void;
  /** Takes states and scores of all rows over, as copies. @param states of each layer @param logits of each row, [v] */
  load(states: readonly Readonly<Record<string, tf.Tensor>>[], logits: readonly Float32Array[]): void;
  /** The states as new tensors. */
  states(): Record<string, tf.Tensor>[];
  /** The scores as a new tensor, [b, v]. */
  logits(): tf.Tensor2D;
  /** Feeds a token to each row. */
  feed(tokens: Int32Array): void;
  /** Feeds each row the tokens of a prompt, which may be none, and yields where others may run; absent where the layers' code reads prompts. */
  read?(texts: readonly Int32Array[]): Pieces<void>;
  /**
   * Chooses tokens and feeds each; absent where the host chooses.
   * @returns ids of each row; below 0 where none could be chosen: -1 for scores that are no numbers, -2 where all are removed
   */
  decode?(count: number, choice: StepChoice): Promise<Int32Array[]>;
  dispose(): void;
}

/** What a device has of a weight where a model is cut, and how what it gives becomes that of the whole weight. */
export interface WeightCut {
  part(device: number): ArrayPart;
  /** A matrix whose inputs are cut: products are added up. `normed`: channels of the norm before it, where that is over all devices, else null. */
  readonly sums?: { readonly normed: number | null };
  /** An embedding or a head whose rows are cut: how many there are. */
  readonly vocabulary?: number;
}

/** A model of which several devices have a part of each layer. */
export interface TensorParallel {
  readonly count: number;
  /** What one device computes: the same architecture with fewer heads, over its parts of the weights. Its vocabulary is the whole one. */
  readonly network: RecurrentLM;
  /** How a weight is cut; null for one that lies on all devices. */
  weight(name: string): WeightCut | null;
  /** What a device has of a state of a layer, by the axes of its spec. */
  state(name: string, device: number): ArrayPart;
}

/**
 * A causal language model of recurrent blocks: embedding, blocks, final norm, head, as functions over given weights.
 * Eager runs pass the layers' own variables, compiled programs symbolic ones, adapters a base with something on top.
 */
export interface RecurrentLM<C extends LMConfig = LMConfig> {
  readonly config: C;
  /** Of programs and tf.LayersModels. */
  readonly name: string;
  /** Full names of two matrices [v, d]. Where config.tie_word_embeddings is set there is no head: it is the embedding once more. */
  readonly names: { readonly embedding: string; readonly head: string };
  /** Every layer with the prefix of its weights, in the checkpoint's order. */
  namedLayers(): NamedLayer[];
  /** Names, shapes and initialisers of all weights, by their names in a checkpoint. */
  weightSpecs(): WeightSpec[];
  /** What each layer carries; the same for all. */
  stateSpecs(): readonly StateSpec[];
  /** What changes the meaning of a state, as text by key: files of states say which model they belong to. */
  fingerprint(): Record<string, string>;
  /** The same architecture with other values for some keys of its configuration. */
  withConfig(changes: Readonly<Record<string, unknown>>): RecurrentLM<C>;
  /** The model over several devices, where the architecture can be cut. @throws ArgumentError where it cannot be over so many */
  tensorParallel?(devices: number): TensorParallel;
  /** The layers applied one after another, for a tf.LayersModel. @param ids int32 [b, t] */
  connect(ids: tf.SymbolicTensor): { hidden: tf.SymbolicTensor; logits: tf.SymbolicTensor };
  /** @param ids int32 [b, t] @returns [b, t, d] */
  embed(weights: Weights, ids: tf.Tensor2D): tf.Tensor3D;
  /**
   * Blocks and final norm.
   * @param weights all weights by checkpoint name @param embedded [b, t, d]
   * @returns the normed stream [b, t, d] and the new states, all new tensors
   */
  hidden(weights: Weights, embedded: tf.Tensor3D, options?: HiddenOptions): Hidden;
  /** hidden() in pieces: a yield between layers, where the event loop may run. Default: all of hidden() in one piece. */
  hiddenInPieces?(
    weights: Weights,
    embedded: tf.Tensor3D,
    options?: HiddenOptions,
  ): Generator<undefined, Hidden, undefined>;
  /** @param h normed, [..., d] @returns logits [..., v], float32 */
  head(weights: Weights, h: tf.Tensor): tf.Tensor;
  /** Steps of so many rows over given weights, which must outlive them; null where the device in use has none. */
  deviceSteps?(weights: Weights, batch: number): DeviceSteps | null;
  /** Final norm and head of one position. @param h before the norm, [b, d] @param handover see Hidden @returns [b, v], float32 */
  normedHead(weights: Weights, h: tf.Tensor2D, handover?: unknown): tf.Tensor2D;
}

/** hiddenInPieces() of a network that may not have it. */
export function* hiddenOf(
  network: Pick<RecurrentLM, 'hidden' | 'hiddenInPieces'>,
  ...args: Parameters<RecurrentLM['hidden']>
): Pieces<Hidden> {
  return network.hiddenInPieces ? yield* network.hiddenInPieces(...args) : network.hidden(...args);
}

/** The name of the matrix that makes logits: the head's own, or the embedding's where it is tied. */
export function headWeight({ config, names }: RecurrentLM): string {
  return config.tie_word_embeddings ? names.embedding : names.head;
}
