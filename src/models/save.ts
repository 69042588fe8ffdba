/** Saving a causal language model so that transformers can load it. */
import type * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';
import { encodeFloat32, type FloatDtype, floatDtypeOf, torchDtypeName } from '../base/stored_dtypes.js';
import { saveCheckpoint, type SaveCheckpointOptions } from '../checkpoints/save.js';
import { COMMON_RULES, EXTRA_FILES, SAVE_OTHERS } from '../checkpoints/save_options.js';
import type { OutTensor, StoredDtype } from '../checkpoints/source.js';
import type { NetworkWeights } from '../engine/network_weights.js';
import {
  packedOutTensors,
  quantizationOf,
  quantizationRecord,
  quantizedMetadata,
} from '../engine/quantized_weights.js';
import { isStored, type Weight } from '../layers/weights.js';
import { plain } from '../base/quote.js';

export interface SaveOptions extends Pick<
  SaveCheckpointOptions,
  'max_shard_size' | 'legacy_json' | 'signal' | 'on_progress' | 'extra_files'
> {
  /** Stored type of the weights. Default: as in the checkpoint when nothing was changed since loading, else float32. */
  dtype?: 'float32' | 'float16' | 'bfloat16';
}

const SAVED: readonly unknown[] = ['F32', 'F16', 'BF16'] satisfies FloatDtype[];

/** Options of save_pretrained() of a model. */
export const SAVE_PRETRAINED_TABLE = new OptionTable<SaveOptions>(
  'save_pretrained()',
  {
    ...COMMON_RULES,
    extra_files: EXTRA_FILES,
    dtype: { kind: kinds.named("'float32', 'float16' or 'bfloat16'", (v) => SAVED.includes(floatDtypeOf(v))) },
  },
  { others: SAVE_OTHERS },
);

/** @throws ArgumentError for a matrix with an adapter on it: one tensor of a checkpoint cannot say what it does */
function refuseAdapted(name: string, weight: Weight): void {
  if (!isStored(weight)) return;
  throw new ArgumentError(
    `save_pretrained: '${plain(name)}' has an adapter on it, or merged into an embedding whose head is tied to it. Save the model with it (await peft.merge_and_unload().save_pretrained(dir)), the adapter alone (save_adapter(peft, dir)), or the model without it, after peft.unload().`,
    { name },
  );
}

/**
 * Writes config.json and the weights in Hugging Face's layout.
 * @throws ArgumentError for weights with an adapter on them, and an unknown dtype; SaveError. No file is left then
 */
export async function saveWeights(dir: string, weights: NetworkWeights, options: SaveOptions = {}): Promise<void> {
  const { dtype: asked, ...save } = options;
  const wanted = asked === undefined ? null : floatDtypeOf(asked);
  const { source, network } = weights;
  const untouched = !weights.materialized && source !== null;
  const stored = (name: string): StoredDtype => (untouched ? source.tensors.get(name)!.dtype : 'F32');
  const read = async (name: string): Promise<Float32Array> =>
    untouched ? source.readFloat32(name) : ((await (weights.all()[name] as tf.Tensor).data()) as Float32Array);
  const quantization = quantizationOf(weights);
  const specs = network.weightSpecs();
  const tensors: OutTensor[] = specs.flatMap(({ name, shape }) => {
    const packed = quantization?.matrices.get(name);
    if (packed) return packedOutTensors(name, packed);
    if (!untouched) refuseAdapted(name, weights.all()[name]!);
    const dtype = wanted ?? stored(name);
    return {
      name,
      dtype,
      shape,
      data: async () =>
        untouched && dtype === stored(name)
          ? source.readBytes(name)
          : encodeFloat32(await read(name), dtype as FloatDtype),
    };
  });
  // the first that is stored as it is: the embedding, or where that is quantised a norm
  const plain = specs.find(({ name }) => !quantization?.matrices.has(name))!;
  const main = tensors.find(({ name }) => name === plain.name)!.dtype;
  const record = {
    ...network.config.to_dict(),
    dtype: torchDtypeName(main),
    ...(quantization && quantizationRecord(quantization.config)),
  };
  const metadata = quantization ? quantizedMetadata(specs, quantization.matrices) : undefined;
  await saveCheckpoint(dir, record, tensors, { ...save, metadata });
}
