/** A model over the tokens of one text or several on WebAssembly: a list of operations over a model's tensors, made once; one call runs a step. */
import * as tf from '@tensorflow/tfjs';
import { DisposedError } from '../../base/errors.js';
import type { Pieces } from '../../base/pieces.js';
import type { ModelTensors, StepStates } from '../model_tensors.js';
import { widths } from '../webgpu/recurrence.js';
import type { StepSizes } from '../webgpu/steps.js';
import { wasmBackend } from './dense.js';
import { type Address, addressOf, kernelsOver, type WasmBackend, type WasmKernels } from './module.js';
import { type PackedMatrix, placedPacked } from './packed.js';
import {
  CARRIED,
  convolutionOperation,
  lookupOperation,
  normOperation,
  type Operation,
  type PlacedMatrix,
  productOperation,
  recurrenceOperation,
  TO,
  WORDS,
} from './program.js';

/** Places for float32 values in one tensor, each at a multiple of 16 bytes. */
class Room {
  private size = 0;

  /** @returns where the place is, in bytes from the tensor's beginning */
  of(values: number): number {
    const at = 4 * this.size;
    this.size += 4 * Math.ceil(values / 4);
    return at;
  }

  /** The tensor with all places, zeros. */
  tensor(): tf.Tensor {
    return tf.zeros([this.size]);
  }
}

/** Where what a layer carries from token to token lies. */
interface LayerPlace {
  /** [batch, taps-1, channels] */
  readonly context: Address;
  /** [batch, heads, headDim, stateSize] */
  readonly state: Address;
}

/** Tokens of a prompt that are read together: what they are at each place in a layer stays in the cache. */
const MOST = 64;

/** Where the stream and what a layer makes of it lie, of each row. */
type Vectors = Readonly<Record<'x' | 'normed' | 'projected' | 'convolved' | 'gated', Address>>;

/** Operations of a layer, and which of them carry something. */
const OF_LAYER = 6;
const CARRYING = { context: 2, state: 3 } as const;

/** Steps of one text or several. The weights' tensors must outlive it. */
export class WasmSteps {
  readonly ready = Promise.resolve();
  private readonly kernels: WasmKernels;
  /** Parameters of heads and taps in the order in which they are read, and all places. */
  private readonly made: tf.Tensor[] = [];
  private readonly layers: readonly LayerPlace[];
  /** Which text is read; null where each row is a text. */
  private reads: number | null = null;
  /** Where the number of tokens is, and behind it their ids. */
  private readonly rows: Address;
  /** Where a 1 is. */
  private readonly one: Address;
  /** [batch, vocabulary] */
  private readonly scores: Address;
  private readonly program: Address;
  private readonly scratch: Address;
  private readonly scratchSize: number;
  private disposed = false;

  constructor(
    private readonly backend: WasmBackend,
    private readonly sizes: StepSizes,
    weights: ModelTensors,
    private readonly batch: number,
  ) {
    this.kernels = kernelsOver(backend)!;
    const { hidden, vocabulary } = sizes;
    const { inner, channels, width } = widths(sizes);
    const most = Math.max(MOST, batch);
    const room = new Room();
    const [x, normed, gated] = [hidden, Math.max(hidden, inner), inner].map((size) => room.of(most * size)) as [number, number, number]; // prettier-ignore
    const [projected, convolved] = [room.of(most * width), room.of(most * channels)];
    const { context, state } = this.carried;
    const layers = weights.layers.map(() => [room.of(batch * context), room.of(batch * state)] as const);
    const [rows, one, scores] = [room.of(1 + most), room.of(1), room.of(batch * vocabulary)];
    const program = room.of(WORDS * (1 + OF_LAYER * layers.length + 4));
    const base = this.own(room.tensor());
    this.layers = layers.map(([context, state]) => ({ context: base + context, state: base + state }));
    [this.rows, this.one, this.scores, this.program] = [rows, one, scores, program].map((at) => base + at) as [number, number, number, number]; // prettier-ignore
    this.kernels.words(this.one, 1)[0] = 1;
    const operations = this.operations(weights, {
      ...{ x: base + x, normed: base + normed, projected: base + projected },
      ...{ convolved: base + convolved, gated: base + gated },
    });
    operations.forEach(({ words }, i) => this.kernels.words(this.operation(i), WORDS).set(words));
    this.turnTo(null);
    this.scratchSize = 4 * Math.ceil(Math.max(...operations.map(({ scratch }) => scratch)) / 4);
    this.scratch = this.own(tf.zeros([this.scratchSize * this.kernels.threads]));
  }

  /** How many values of each kind a text carries. */
  private get carried(): Record<keyof LayerPlace, number> {
    const { taps, stateSize } = this.sizes;
    const { inner, channels } = widths(this.sizes);
    return { context: (taps - 1) * channels, state: inner * stateSize };
  }

  /** Has the operations work on the state of one text, and the head give its scores; or, with null, on a row of each. */
  private turnTo(text: number | null): void {
    const { carried } = this;
    this.layers.forEach((places, i) => {
      for (const kind of ['context', 'state'] as const) {
        const words = this.kernels.words(this.operation(1 + OF_LAYER * i + CARRYING[kind]), WORDS);
        words[CARRIED[kind].first] = places[kind] + 4 * (text ?? 0) * carried[kind];
        words[CARRIED[kind].step] = text === null ? 4 * carried[kind] : 0;
      }
    });
    const head = this.kernels.words(this.operation(this.count + 1), WORDS);
    head[TO] = this.scores + 4 * (text ?? 0) * this.sizes.vocabulary;
    this.reads = text;
  }

  /** Where an operation lies. */
  private operation(index: number): Address {
    return this.program + 4 * WORDS * index;
  }

  private operations(weights: ModelTensors, vectors: Vectors): Operation[] {
    const { rows, sizes, batch } = this;
    const { x, normed } = vectors;
    const { hidden: inner, epsilon } = sizes;
    const norm = { inner, gamma: this.at(weights.gamma), groups: 1, epsilon };
    const head = this.placed(weights.head);
    return [
      lookupOperation(this.placed(weights.embedding), { rows, x: rows + 4, y: x }),
      ...weights.layers.flatMap((layer, i) => this.operationsOf(layer, this.layers[i]!, vectors)),
      // of each row, after a step
      normOperation({ rows, x, y: normed }, norm),
      productOperation(head, { rows, x: normed, y: this.scores }, { most: batch }),
      // of the last one, after a prompt
      normOperation({ rows, x, y: normed }, { ...norm, last: true }),
      productOperation(head, { rows: this.one, x: normed, y: this.scores }, { most: 1 }),
    ];
  }

  private operationsOf(layer: ModelTensors['layers'][number], place: LayerPlace, vectors: Vectors): Operation[] {
    const { rows, sizes } = this;
    const { x, normed, projected, convolved, gated } = vectors;
    const { hidden, epsilon, taps, normGroups } = sizes;
    const { inner, channels, width: stride } = widths(sizes);
    const most = Math.max(MOST, this.batch);
    const rates = this.own(tf.tidy(() => tf.concat([layer.dtBias, layer.aLog, layer.d])));
    const weights = this.own(tf.tidy(() => tf.transpose(tf.reshape(layer.taps, [channels, taps])))); // [taps, channels]
    const { context, state } = place;
    const bias = this.at(layer.bias);
    return [
      normOperation({ rows, x, y: normed }, { inner: hidden, gamma: this.at(layer.gamma), groups: 1, epsilon }),
      productOperation(
        this.placed(layer.inProj),
        { rows, x: normed, y: projected },
        { bias: this.at(layer.inBias), most },
      ),
      convolutionOperation(
        { rows, x: projected + 4 * inner, y: convolved, context, weights, bias },
        { channels, taps, stride },
      ),
      recurrenceOperation({ rows, x: projected, y: gated, convolved, rates, state }, sizes),
      normOperation(
        { rows, x: gated, y: normed },
        { inner, gamma: this.at(layer.normGamma), groups: normGroups, epsilon },
      ),
      productOperation(
        this.placed(layer.outProj),
        { rows, x: normed, y: x },
        { bias: this.at(layer.outBias), accumulate: true, most },
      ),
    ];
  }

  /** Where a weight lies; 0 for one that there is not. */
  private at(tensor?: tf.Tensor): Address {
    return tensor ? addressOf(this.backend, tensor.dataId) : 0;
  }

  /** Keeps a tensor until dispose(). @returns where it lies */
  private own(tensor: tf.Tensor): Address {
    this.made.push(tf.keep(tensor));
    return addressOf(this.backend, tensor.dataId);
  }

  private placed(matrix: tf.Tensor | PackedMatrix): PlacedMatrix {
    if (!(matrix instanceof tf.Tensor)) return placedPacked(this.backend, matrix);
    const [out, inner] = matrix.shape as [number, number];
    return { bits: 32, out, inner, groupSize: inner, codes: addressOf(this.backend, matrix.dataId), levels: 0 };
  }

  /** Takes states and scores of all rows over, as copies. @param logits of each row, [vocabulary] */
  load(states: readonly Readonly<Record<string, tf.Tensor>>[], logits: readonly Float32Array[]): void {
    const copy = (tensor: tf.Tensor, to: Address): void =>
      this.kernels
        .values(to, tensor.size)
        .set(this.kernels.values(addressOf(this.backend, tensor.dataId), tensor.size));
    (states as readonly StepStates[]).forEach(({ conv, ssm }, i) => {
      const { context, state } = this.layers[i]!;
      copy(ssm, state);
      if (conv.size > 0) copy(conv, context);
    });
    logits.forEach((row, i) => this.kernels.values(this.scores + i * row.byteLength, row.length).set(row));
  }

  /** The states as new tensors. */
  states(): StepStates[] {
    const { heads, headDim, stateSize, taps } = this.sizes;
    const { channels } = widths(this.sizes);
    const { batch } = this;
    return this.layers.map(({ context, state }) => ({
      conv: this.copied(context, [batch, taps - 1, channels]),
      ssm: this.copied(state, [batch, heads, headDim, stateSize]),
    }));
  }

  /** The scores as a new tensor, [batch, vocabulary]. */
  logits(): tf.Tensor2D {
    return this.copied(this.scores, [this.batch, this.sizes.vocabulary]);
  }

  private copied<T extends tf.Tensor>(from: Address, shape: number[]): T {
    return tf.tensor(this.kernels.values(from, tf.util.sizeFromShape(shape)).slice(), shape) as T;
  }

  /** Feeds a token to each row. */
  feed(tokens: Int32Array): void {
    this.take(tokens, null);
    this.run(0, this.count);
  }

  /** Feeds each row its tokens, and lets others run between layers. Scores are those after the last. */
  *read(texts: readonly Int32Array[]): Pieces<void> {
    for (const [text, ids] of texts.entries()) {
      if (ids.length === 0) continue;
      for (let from = 0; from < ids.length; from += MOST) {
        this.take(ids.subarray(from, from + MOST), text);
        this.run(0, 1);
        for (let i = 0; i < this.layers.length; i++) {
          this.run(1 + OF_LAYER * i, OF_LAYER);
          yield;
        }
      }
      this.run(this.count, 2);
    }
  }

  /** Operations of a step. */
  private get count(): number {
    return 1 + OF_LAYER * this.layers.length + 2;
  }

  private take(ids: ArrayLike<number>, text: number | null): void {
    this.alive();
    if (text !== this.reads) this.turnTo(text);
    this.kernels.words(this.rows, 1)[0] = ids.length;
    this.kernels.words(this.rows + 4, ids.length).set(ids);
  }

  private run(first: number, count: number): void {
    this.alive();
    this.kernels.run(this.operation(first), count, this.scratch, this.scratchSize);
  }

  private alive(): void {
    if (this.disposed) throw new DisposedError('The decoding steps of this model were disposed');
  }

  dispose(): void {
    this.disposed = true;
    tf.dispose(this.made);
  }
}

/** Steps over a model's tensors; null on other backends. */
export function wasmSteps(sizes: StepSizes, weights: ModelTensors, batch: number): WasmSteps | null {
  const backend = wasmBackend();
  return backend && new WasmSteps(backend, sizes, weights, batch);
}
