/** The decoding steps of one row or several as dispatches that are made once, with states and scores where they lie. */
import { DisposedError } from '../../base/errors.js';
import { Turns } from '../../base/turns.js';
import { choiceKernel, flagsOf } from './choice.js';
import { CONTROL, controlWords } from './control.js';
import { embeddingKernel } from './embedding.js';
import {
  bytesOf,
  checked,
  checkLoss,
  type Dispatch,
  dispatchOf,
  encode,
  type GpuBinding,
  type GpuBuffer,
  GpuBuffers,
  type GpuDevice,
  watchForLoss,
} from './gpu.js';
import type { GpuMatrix } from './matrices.js';
import { productKernel, type ProductSpec } from './product.js';
import { convolutionKernel, recurrenceKernel, type RecurrenceSpec, widths } from './recurrence.js';

export interface StepSizes extends RecurrenceSpec {
  readonly hidden: number;
  readonly vocabulary: number;
  readonly epsilon: number;
  /** Groups of channels, each normed by itself before the output projection. */
  readonly normGroups: number;
}

/** Weights of a layer on the device. */
export interface LayerBuffers {
  /** Of the norm before the input projection, [hidden] */
  readonly gamma: GpuBinding;
  readonly inProj: GpuMatrix;
  readonly inBias?: GpuBinding;
  /** [channels, taps] */
  readonly taps: GpuBinding;
  readonly bias?: GpuBinding;
  /** dt_bias, A_log and D, [3, heads] */
  readonly heads: GpuBinding;
  /** Of the norm before the output projection, [heads·headDim] */
  readonly normGamma: GpuBinding;
  readonly outProj: GpuMatrix;
  readonly outBias?: GpuBinding;
}

export interface StepWeights {
  readonly embedding: GpuMatrix;
  readonly layers: readonly LayerBuffers[];
  /** Of the last norm, [hidden] */
  readonly gamma: GpuBinding;
  readonly head: GpuMatrix;
}

/** What a layer carries from token to token. */
export interface LayerStateBuffers {
  /** [batch, taps-1, channels]; of no meaning with one tap */
  readonly context: GpuBuffer;
  /** [batch, heads, headDim, stateSize] */
  readonly state: GpuBuffer;
}

/** How tokens are chosen. */
export interface StepChoice {
  /** Drawn by numbers in [0, 1), one for each token of each row; else the best is taken. */
  readonly uniforms?: readonly Float32Array[];
  readonly temperature: number;
  /** 0: all */
  readonly topK: number;
  /** Ids that are never chosen. */
  readonly removed: readonly number[];
  /** Ids that end a row: it gives `pad` then, and stays as it is after the id that ended it. */
  readonly ends: readonly number[];
  readonly pad: number;
  /** Rows that ended before: they give `pad`, and stay as they are. */
  readonly finished?: readonly boolean[];
}

/** The most tokens of a row in a call: what is read back at once. */
const MOST_TOKENS = 128;

/**
 * The states and scores of one row or several, and their steps. Weights are others' and outlive it; all that it makes itself goes with dispose().
 */
export class DecodingSteps {
  /** Zeros at first. */
  readonly states: readonly LayerStateBuffers[];
  /** Of the next token, [batch, vocabulary] */
  readonly logits: GpuBuffer;
  private readonly buffers: GpuBuffers;
  private readonly control: GpuBuffer;
  private readonly chosen: GpuBuffer;
  private readonly staging: GpuBuffer;
  private readonly flags: GpuBuffer;
  private readonly uniforms: GpuBuffer;
  /** From a token to the scores of the next. */
  private readonly step: readonly Dispatch[];
  /** Refused with a DeviceError where the device does not take what was prepared. Not waited for, nothing says so. */
  readonly ready: Promise<void>;
  private readonly choices = new Map<string, Dispatch>();
  private readonly turns = new Turns();
  private flagsKey = '';
  private disposed = false;

  constructor(
    readonly device: GpuDevice,
    private readonly sizes: StepSizes,
    weights: StepWeights,
    readonly batch = 1,
  ) {
    const { stateSize, taps, vocabulary } = sizes;
    const { inner, channels } = widths(sizes);
    watchForLoss(device);
    this.buffers = new GpuBuffers(device);
    const floats = (count: number): GpuBuffer => this.buffers.storage(4 * count);
    this.states = weights.layers.map(() => ({
      context: floats(batch * (taps - 1) * channels),
      state: floats(batch * inner * stateSize),
    }));
    this.logits = floats(batch * vocabulary);
    this.control = floats(batch * CONTROL.length);
    this.chosen = floats(batch * MOST_TOKENS);
    this.staging = this.buffers.staging(4 * batch * MOST_TOKENS);
    this.flags = this.buffers.storage(flagsOf(vocabulary, [], []).byteLength);
    this.uniforms = floats(batch * MOST_TOKENS);
    const { made, ready } = checked(device, 'A decoding step', () => this.prepare(weights));
    this.step = made;
    this.ready = ready;
    ready.catch(() => undefined); // whoever decodes waits for it
  }

  /** Dispatches of a token of each row, its choice included. */
  get dispatches(): number {
    return this.step.length + 1;
  }

  private prepare({ embedding, layers, gamma, head }: StepWeights): Dispatch[] {
    const { device, sizes, batch } = this;
    const { hidden, epsilon, normGroups } = sizes;
    const { inner, channels, width } = widths(sizes);
    const own = (count: number): GpuBinding => ({ buffer: this.buffers.storage(4 * batch * count) });
    const [x, projected] = [own(hidden), own(width)];
    const [convolved, gated] = [own(channels), own(inner)];
    const control = { buffer: this.control };
    const product = (
      matrix: GpuMatrix,
      given: Record<string, GpuBinding | undefined>,
      rest: Partial<ProductSpec>,
    ): Dispatch[] =>
      matrix.parts.map(({ first, out, values, levels }) => {
        const { format, inner: columns } = matrix;
        const rows = { out, first, batch, width: matrix.out };
        const about = { inner: columns, ...rows, format, accumulate: false, guarded: false, norm: null };
        const kernel = productKernel({ ...about, ...rest, bias: given['bias'] !== undefined });
        return dispatchOf(device, kernel, { ...given, matrix: values, levels, control });
      });
    const embed = embedding.parts.map(({ first, out, values, levels }) => {
      const kernel = embeddingKernel({ inner: hidden, format: embedding.format, first, out, batch });
      return dispatchOf(device, kernel, { matrix: values, levels, x, control });
    });
    const [convolution, recurrence] = [convolutionKernel(sizes, batch), recurrenceKernel(sizes, batch)];
    const blocks = layers.flatMap((layer, i) => {
      const { context, state } = this.states[i]!;
      const { gamma, inBias, taps, bias, normGamma, outBias } = layer;
      const passed = { projected, convolved, gated, control };
      return [
        ...product(layer.inProj, { x, gamma, bias: inBias, y: projected }, { norm: { groups: 1, epsilon } }),
        dispatchOf(device, convolution, { ...passed, context: { buffer: context }, taps, bias }),
        dispatchOf(device, recurrence, { ...passed, state: { buffer: state }, heads: layer.heads }),
        ...product(
          layer.outProj,
          { x: gated, gamma: normGamma, bias: outBias, y: x },
          { norm: { groups: normGroups, epsilon }, accumulate: true },
        ),
      ];
    });
    const scores = { x, gamma, y: { buffer: this.logits } };
    return [...embed, ...blocks, ...product(head, scores, { norm: { groups: 1, epsilon }, guarded: true })];
  }

  private choice({ uniforms, topK }: StepChoice): Dispatch {
    const spec = {
      ...{ vocabulary: this.sizes.vocabulary, batch: this.batch, most: MOST_TOKENS },
      ...{ drawn: uniforms !== undefined, topK: uniforms !== undefined && topK > 0 },
    };
    const key = `${spec.drawn} ${spec.topK}`;
    let made = this.choices.get(key);
    if (!made) {
      const bound = {
        logits: this.logits,
        flags: this.flags,
        uniforms: this.uniforms,
        chosen: this.chosen,
        control: this.control,
      };
      const bindings = Object.fromEntries(Object.entries(bound).map(([name, buffer]) => [name, { buffer }]));
      made = dispatchOf(this.device, choiceKernel(spec), bindings);
      this.choices.set(key, made);
    }
    return made;
  }

  /** Feeds a token to each row. What is submitted later comes after it. */
  feed(tokens: ArrayLike<number>): void {
    this.alive();
    this.steer((row) => ({ token: tokens[row]!, moves: 1 }));
    this.submit(this.step);
  }

  /**
   * Chooses tokens from the scores, and feeds each.
   * @param count of each row, MOST_TOKENS at most
   * @returns the ids of each row, `pad` after the end; NO_CHOICE's where none could be chosen, from there on
   */
  decode(count: number, choice: StepChoice): Promise<Int32Array[]> {
    return this.turns.take(async () => {
      this.alive();
      const { queue } = this.device;
      const key = `${choice.removed.join()} ${choice.ends.join()}`;
      if (key !== this.flagsKey) queue.writeBuffer(this.flags, 0, flagsOf(this.sizes.vocabulary, choice.removed, choice.ends)); // prettier-ignore
      this.flagsKey = key;
      choice.uniforms?.forEach((numbers, row) =>
        queue.writeBuffer(this.uniforms, 4 * row * MOST_TOKENS, numbers.slice(0, count)),
      );
      const { pad, topK: top_k, temperature, finished } = choice;
      this.steer((row) => ({ pad, top_k, finished: finished?.[row] ? 1 : 0 }), temperature);
      const dispatches = [this.choice(choice), ...this.step];
      // one submission a token: a long one would hold up what else the device draws
      for (let k = 0; k < count; k++) this.submit(dispatches);
      const encoder = this.device.createCommandEncoder();
      encoder.copyBufferToBuffer(this.chosen, 0, this.staging, 0, this.staging.size);
      this.device.queue.submit([encoder.finish()]);
      const bytes = await bytesOf(this.staging).catch((error: unknown) => {
        this.alive(); // disposed of meanwhile, or lost
        throw error;
      });
      return this.rows((row) => new Int32Array(bytes, 4 * row * MOST_TOKENS, count));
    });
  }

  private rows<T>(of: (row: number) => T): T[] {
    return Array.from({ length: this.batch }, (_, row) => of(row));
  }

  private steer(of: (row: number) => Partial<Parameters<typeof controlWords>[0]>, temperature = 1): void {
    const none = { token: 0, moves: 0, finished: 0, pad: 0, top_k: 0 };
    const words = this.rows((row) => [...controlWords({ ...none, ...of(row) }, temperature)]);
    this.device.queue.writeBuffer(this.control, 0, Uint32Array.from(words.flat()));
  }

  private submit(dispatches: readonly Dispatch[]): void {
    const encoder = this.device.createCommandEncoder();
    encode(encoder, dispatches);
    this.device.queue.submit([encoder.finish()]);
  }

  /** @throws DisposedError, or DeviceError where the device is lost */
  alive(): void {
    if (this.disposed) throw new DisposedError('The decoding steps of this model were disposed');
    checkLoss(this.device);
  }

  dispose(): void {
    this.disposed = true;
    this.buffers.dispose();
  }
}
