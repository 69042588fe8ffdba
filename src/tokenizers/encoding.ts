import type * as tf from '@tensorflow/tfjs';
import { parseDevice, type DeviceLike } from '../base/devices.js';
import { DeviceError } from '../base/errors.js';
import { quote } from '../base/quote.js';

/** Ids or a mask: of one text, of several, or as a tensor [b, t]. */
export type EncodedRows = number[] | number[][] | tf.Tensor2D;

/**
 * What a tokenizer gives for texts: their ids, and which of them are text (1) or padding (0). `generate()` and
 * `forward()` take it whole, or spread into their inputs.
 */
export class BatchEncoding<Ids extends EncodedRows = number[][]> {
  /** TensorFlow.js, where the ids are its tensors. Private to JavaScript, too: it must not be among the inputs of a model. */
  readonly #tfjs: typeof tf | null;

  constructor(
    readonly input_ids: Ids,
    readonly attention_mask: Ids,
    tfjs: typeof tf | null = null,
  ) {
    this.#tfjs = tfjs;
  }

  /** Rows of one length as tensors. */
  static async tensors(ids: readonly number[][], mask: readonly number[][]): Promise<BatchEncoding<tf.Tensor2D>> {
    const tfjs = await import('@tensorflow/tfjs');
    await tfjs.ready(); // a backend that is imported may not have begun
    const shape: [number, number] = [ids.length, ids[0]!.length];
    const tensor = (rows: readonly number[][]): tf.Tensor2D => tfjs.tensor2d(rows.flat(), shape, 'int32');
    return new BatchEncoding(tensor(ids), tensor(mask), tfjs);
  }

  /**
   * The encoding itself: a model takes ids from wherever they lie, so there is nothing to move. The device must be the
   * one in use, where the ids are tensors.
   *
   * @throws ArgumentError for what names no device; DeviceError for another device than the one in use
   */
  to(device: DeviceLike): this {
    const { device: wanted } = parseDevice(device);
    const tfjs = this.#tfjs;
    if (tfjs === null || wanted === 'auto') return this;
    const backend = tfjs.getBackend();
    const onGpu = (tfjs.backend() as { isUsingGpuDevice?: boolean }).isUsingGpuDevice === true;
    const names: Record<string, readonly string[]> = {
      tensorflow: ['tensorflow', onGpu ? 'gpu' : 'cpu'],
      wasm: ['wasm', 'cpu'],
      cpu: ['js', 'cpu'],
    };
    const here = names[backend];
    // a backend that is not ours, as WebGL in a browser, knows better than we where its tensors lie
    if (here === undefined || here.includes(wanted)) return this;
    throw new DeviceError(
      `to(${quote(device)}): the ids lie where TensorFlow.js computes, and that is the ${here.at(-1)} (backend ${backend}). Load the model with ` +
        `device: ${quote(device)} before you make tensors, or leave to() out: a model takes ids from anywhere.`,
      { got: device, expected: here },
    );
  }

  /** Frees the tensors, where there are any. */
  dispose(): void {
    for (const ids of [this.input_ids, this.attention_mask]) if (!Array.isArray(ids)) ids.dispose();
  }
}
