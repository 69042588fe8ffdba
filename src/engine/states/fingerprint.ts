/** What tells one model from another, for files that belong to a model. */
import { createHash } from 'node:crypto';
import * as tf from '@tensorflow/tfjs';
import { decodeFloat32, DTYPE_BYTES } from '../../base/stored_dtypes.js';
import type { WeightSpec } from '../../layers/weights.js';
import { QuantizedLinear } from '../../quant/index.js';
import type { NetworkWeights } from '../network_weights.js';
import { isInFile } from '../file_tensors.js';
import { quantizationOf } from '../quantized_weights.js';

/** SHA-256 of a configuration fingerprint, in hex. */
export function configHash(fingerprint: Record<string, string>): string {
  return createHash('sha256').update(JSON.stringify(fingerprint)).digest('hex');
}

/**
 * SHA-256, in hex, over all vectors of a model and the first row of each matrix, as float32; of a quantised matrix over
 * its scales. Training, merging an adapter or quantising changes some of these; how the weights are held does not. Reads
 * a small part of the file, and makes no variables where there are none.
 */
export async function weightsHash(weights: NetworkWeights): Promise<string> {
  const hash = createHash('sha256');
  for (const spec of [...weights.network.weightSpecs()].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const { kind, values } = await sample(weights, spec);
    hash.update(`${spec.name} ${kind} [${spec.shape.join(', ')}]\n`);
    hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  return hash.digest('hex');
}

async function sample(weights: NetworkWeights, spec: WeightSpec): Promise<{ kind: string; values: Float32Array }> {
  const wanted = spec.shape.length === 2 ? spec.shape[1]! : spec.shape.reduce((a, b) => a * b, 1);
  const form = weights.storedForm(spec.name);
  const packed = quantizationOf(weights)?.matrices.get(spec.name);
  if (packed && form instanceof QuantizedLinear) return { kind: `int${packed.bits}`, values: packed.scale };
  if (form) {
    // a matrix with an adapter: what it makes of the first axis
    const column = tf.tidy(() =>
      form.apply(tf.oneHot(tf.tensor1d([0], 'int32'), spec.shape[1]!).toFloat() as tf.Tensor2D),
    );
    const values = (await column.data<'float32'>()).slice();
    column.dispose();
    return { kind: 'adapted', values };
  }
  const { source } = weights;
  const info = source?.tensors.get(spec.name);
  const variable = weights.materialized
    ? (weights.base(spec.name) ?? (weights.all()[spec.name] as tf.Tensor))
    : undefined;
  if (source && info && (variable === undefined || isInFile(variable))) {
    const bytes = Math.ceil((wanted * DTYPE_BYTES[info.dtype]) / 8) * 8;
    for await (const piece of source.readSlices(spec.name, bytes))
      return { kind: 'float', values: decodeFloat32(piece, info.dtype).slice(0, wanted) };
  }
  const own = variable ?? (weights.all()[spec.name] as tf.Tensor);
  const part = tf.tidy(() => tf.slice(tf.reshape(own, [-1]), 0, wanted));
  const values = (await part.data<'float32'>()).slice();
  part.dispose();
  return { kind: 'float', values };
}
