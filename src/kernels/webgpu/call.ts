/** Decoding steps on TensorFlow.js' WebGPU device, over the tensors of a model and between its ops. */
import * as tf from '@tensorflow/tfjs';
import type { ModelTensors, StepStates } from '../model_tensors.js';
import type { GpuBinding } from './gpu.js';
import { placedMatrix } from './packed.js';
import { DecodingSteps, type StepChoice, type StepSizes } from './steps.js';
import { bufferOf, submitted, tensorOf, type WebGpuBackend, webGpuBackend } from './tfjs.js';
import { widths } from './recurrence.js';

/** Steps of one row or several. The weights' tensors must outlive it. */
export class WebGpuSteps {
  private readonly steps: DecodingSteps;
  /** Parameters of heads, which it puts together. */
  private readonly made: tf.Tensor[];

  constructor(
    private readonly backend: WebGpuBackend,
    private readonly sizes: StepSizes,
    { embedding, layers, gamma, head }: ModelTensors,
    batch: number,
  ) {
    const at = (tensor: tf.Tensor): GpuBinding => ({ buffer: bufferOf(backend, tensor) });
    this.made = layers.map(({ dtBias, aLog, d }) => tf.keep(tf.concat([dtBias, aLog, d])));
    const weights = {
      embedding: placedMatrix(backend, embedding),
      head: placedMatrix(backend, head),
      gamma: at(gamma),
      layers: layers.map((layer, i) => ({
        gamma: at(layer.gamma),
        inProj: placedMatrix(backend, layer.inProj),
        ...(layer.inBias && { inBias: at(layer.inBias) }),
        taps: at(layer.taps),
        ...(layer.bias && { bias: at(layer.bias) }),
        heads: at(this.made[i]!),
        normGamma: at(layer.normGamma),
        outProj: placedMatrix(backend, layer.outProj),
        ...(layer.outBias && { outBias: at(layer.outBias) }),
      })),
    };
    this.steps = new DecodingSteps(backend.device, sizes, weights, batch);
  }

  /** Dispatches of a token of each row. */
  get dispatches(): number {
    return this.steps.dispatches;
  }

  /** @throws DeviceError where the device is lost */
  check(): void {
    this.steps.alive();
  }

  /** Refused with a DeviceError where the device does not take them. */
  get ready(): Promise<void> {
    return this.steps.ready;
  }

  /** Takes states and scores of all rows over, as copies. @param logits of each row, [vocabulary] */
  load(states: readonly Readonly<Record<string, tf.Tensor>>[], logits: readonly Float32Array[]): void {
    const copies = (states as readonly StepStates[]).flatMap(({ conv, ssm }, i) => {
      const { context, state } = this.steps.states[i]!;
      return [{ tensor: ssm, to: state }, ...(conv.size > 0 ? [{ tensor: conv, to: context }] : [])];
    });
    const sources = copies.map(({ tensor, to }) => ({
      from: bufferOf(this.backend, tensor),
      to,
      bytes: 4 * tensor.size,
    }));
    const device = submitted(this.backend);
    const encoder = device.createCommandEncoder();
    for (const { from, to, bytes } of sources) encoder.copyBufferToBuffer(from, 0, to, 0, bytes);
    device.queue.submit([encoder.finish()]);
    logits.forEach((row, i) => device.queue.writeBuffer(this.steps.logits, i * row.byteLength, row));
  }

  /** The states as new tensors. */
  states(): StepStates[] {
    const { heads, headDim, stateSize, taps } = this.sizes;
    const { channels } = widths(this.sizes);
    const { states, batch } = this.steps;
    return states.map(({ context, state }) => ({
      conv: tensorOf(context, [batch, taps - 1, channels]),
      ssm: tensorOf(state, [batch, heads, headDim, stateSize]),
    }));
  }

  /** The scores as a new tensor, [batch, vocabulary]. */
  logits(): tf.Tensor2D {
    return tensorOf(this.steps.logits, [this.steps.batch, this.sizes.vocabulary]);
  }

  /** Feeds a token to each row. */
  feed(tokens: Int32Array): void {
    this.steps.feed(tokens);
  }

  /** See DecodingSteps.decode(). */
  decode(count: number, choice: StepChoice): Promise<Int32Array[]> {
    return this.steps.decode(count, choice);
  }

  dispose(): void {
    this.steps.dispose();
    tf.dispose(this.made);
  }
}

/** Steps over a model's tensors; null on other backends, and for more rows than a state can be bound of. */
export function webGpuSteps(sizes: StepSizes, weights: ModelTensors, batch: number): WebGpuSteps | null {
  const backend = webGpuBackend();
  if (!backend) return null;
  const { inner, width } = widths(sizes);
  const most = 4 * batch * Math.max(inner * sizes.stateSize, width, sizes.vocabulary);
  if (batch > 1 && most > backend.device.limits.maxStorageBufferBindingSize) return null;
  return new WebGpuSteps(backend, sizes, weights, batch);
}
