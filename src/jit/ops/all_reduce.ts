/** Sums over the devices that run one program at once (program/replicated.ts). */
import * as tf from '@tensorflow/tfjs';
import { record, symbolic, valueOf } from '../trace/backend.js';
import { constantValue } from '../trace/graph.js';
import { attr } from '../trace/graphdef.js';

/**
 * Where sums are made: 'inside' what XLA compiles, which calls NCCL there and so is for GPUs; or 'between' functions that it compiles, by
 * TensorFlow, which adds up on every device.
 */
export type SumPlace = 'inside' | 'between';

/** Keys of groups in TensorFlow: of all sums of a program, and of what has a session make an executor for them. */
const SUM_GROUP = 7;
export const FIRST_GROUP = 1;

/** Devices of a program. Numbers its sums: between functions each has a key of its own. */
export class DeviceGroup {
  private sums = 100;

  constructor(
    readonly size: number,
    readonly place: SumPlace,
    private readonly gpu: boolean,
  ) {}

  /** How TensorFlow adds up: NCCL on GPUs, else a ring of its own. */
  get hint(): string {
    return this.gpu ? 'nccl' : 'auto';
  }

  /** The number of the next sum: devices that compute different things count from the same. */
  get next(): number {
    return this.sums;
  }

  /** Counts from a number once more. */
  countFrom(sum: number): void {
    this.sums = sum;
  }

  /** The key of one more sum. Inside, where XLA matches sums by their order, all have one, so that equal functions stay equal. */
  key(): number {
    const own = this.sums++;
    return this.place === 'inside' ? 100 : own;
  }
}

const int32 = (value: number): ReturnType<typeof constantValue> => constantValue(Int32Array.of(value), [], 'int32');

/** XLA's own kernel for small sums, which takes a third of the time of NCCL's, wants as many numbers for each device. */
const ALIGNED = 4;

/**
 * The sum of what all devices of a group have here. Traced code only; no gradients.
 * @param x float32, of one shape on all devices
 */
export function allReduce<T extends tf.Tensor>(x: T, group: DeviceGroup): T {
  const over = x.size % (ALIGNED * group.size);
  if (group.place === 'between' || over === 0) return summed(x, group);
  const filled = tf.concat([tf.reshape(x, [-1]), tf.zeros([ALIGNED * group.size - over])]);
  return tf.reshape(tf.slice(summed(filled, group), [0], [x.size]), x.shape) as T;
}

function summed<T extends tf.Tensor>(x: T, group: DeviceGroup): T {
  const attrs = {
    merge_op: attr.string('Add'),
    final_op: attr.string('Id'),
    communication_hint: attr.string(group.hint),
    timeout_seconds: attr.float(0),
    is_stateless: attr.bool(false),
    max_subdivs_per_device: attr.int(-1),
  };
  const inputs = [valueOf(x), int32(group.size), int32(SUM_GROUP), int32(group.key())];
  const cut = group.place === 'between' ? 'tensorflow' : undefined;
  return symbolic(record('CollectiveReduceV2', attrs, inputs, cut)[0]!) as T;
}
