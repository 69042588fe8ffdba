/** How a program holds the model's weights: their stored forms, and the small ones in one variable. */
import * as tf from '@tensorflow/tfjs';
import type { VariableSpec } from '../../jit/index.js';
import {
  bfloat16Storage,
  float32Matrix,
  float32Storage,
  type VariableBytes,
  type WeightBytes,
  type WeightStorage,
} from '../../layers/storage.js';
import { isMatrix, type Weight, type Weights, type WeightSpec } from '../../layers/weights.js';
import { bytesOfFile, bytesOfTensor, variableOfFile, type ProgramFloat } from '../file_tensors.js';
import { variables } from './names.js';
import type { NetworkWeights } from '../network_weights.js';

/** Stored type of the large matrices in a program. */
export type ProgramDtype = 'auto' | 'float32' | 'bfloat16';

/** Where a weight's bytes come from: the checkpoint, or the layer variables once they exist and have other values or hold them. */
export function bytesOf(weights: NetworkWeights, name: string, dtype: ProgramFloat): () => Promise<ArrayBufferView> {
  return async () => {
    const { source } = weights;
    if (source && !weights.materialized) return bytesOfFile(source, name, dtype);
    return bytesOfTensor(weights.all()[name] as tf.Tensor, dtype);
  };
}

/** A weight's bytes in a type, when their turn comes. */
export type BytesOf = (dtype: ProgramFloat) => WeightBytes;

/** As bytesOf(), for a weight that is a variable of its own. */
function variableOf(weights: NetworkWeights, name: string, dtype: ProgramFloat): VariableBytes {
  const { source } = weights;
  return () =>
    source && !weights.materialized ? variableOfFile(source, name, dtype) : bytesOf(weights, name, dtype)();
}

/**
 * float32 for everything small; matrices as asked, or as the checkpoint has them.
 * @param rounds see bfloat16Storage @param given bytes of it; default: all of the weight
 */
export function storageOf(
  weights: NetworkWeights,
  spec: WeightSpec,
  dtype: ProgramDtype,
  rounds = false,
  given?: BytesOf,
): WeightStorage {
  const stored = weights.source?.tensors.get(spec.name)?.dtype;
  const wide = dtype === 'float32' || (dtype === 'auto' && stored !== 'BF16');
  if (!isMatrix(spec)) return float32Storage(spec.shape, given ? given('F32') : bytesOf(weights, spec.name, 'F32'));
  const type = wide ? 'F32' : 'BF16';
  const bytes = given ? given(type) : variableOf(weights, spec.name, type);
  return wide ? float32Matrix(spec.shape, bytes) : bfloat16Storage(spec.shape, bytes, rounds);
}

/**
 * Float32 weights other than matrices (norms, convolutions, scales of quantised matrices), one after another in one variable:
 * TensorFlow spends microseconds on each variable of a call.
 */
const PACK = variables.packed;

/** What the variable holds: names of variables as a program without it has them. */
export type Pack = ReadonlyMap<string, VariableSpec>;

/** What goes there, of weights stored so. */
export function packOf(weights: readonly WeightSpec[], storages: ReadonlyMap<string, WeightStorage>): Pack {
  const pack = new Map<string, VariableSpec>();
  for (const weight of weights) {
    for (const [suffix, spec] of Object.entries(storages.get(weight.name)!.variables)) {
      if (spec.dtype === 'float32' && (suffix !== '' || !isMatrix(weight))) pack.set(weight.name + suffix, spec);
    }
  }
  return pack;
}

const elements = ({ shape }: VariableSpec): number => tf.util.sizeFromShape([...shape]);

/** The variable; null where it holds nothing. */
function packVariable(pack: Pack): VariableSpec | null {
  const size = [...pack.values()].reduce((sum, spec) => sum + elements(spec), 0);
  const init = async (): Promise<Float32Array> => {
    const all = new Float32Array(size);
    let at = 0;
    for (const spec of pack.values()) {
      const bytes = await (spec.init as WeightBytes)();
      new Uint8Array(all.buffer, at).set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
      at += bytes.byteLength;
    }
    return all;
  };
  return size > 0 ? { shape: [size], dtype: 'float32', init } : null;
}

/** All variables of weights stored so: those of the pack as one. */
export function weightVariables(storages: ReadonlyMap<string, WeightStorage>, pack: Pack): Map<string, VariableSpec> {
  const packed = packVariable(pack);
  const all = new Map<string, VariableSpec>(packed ? [[PACK, packed]] : []);
  for (const [name, { variables: own }] of storages)
    for (const [suffix, variable] of Object.entries(own))
      if (!pack.has(name + suffix)) all.set(name + suffix, variable);
  return all;
}

/** Weights over the traced variables. */
export function traced(
  storages: ReadonlyMap<string, WeightStorage>,
  pack: Pack,
  vars: Record<string, tf.Tensor>,
): Weights {
  const sizes = [...pack.values()].map(elements);
  const parts = sizes.length > 0 ? tf.split(vars[PACK] as tf.Tensor1D, sizes) : [];
  const packed = new Map([...pack].map(([name, { shape }], i) => [name, tf.reshape(parts[i]!, [...shape])]));
  const record: Record<string, Weight> = {};
  for (const [name, storage] of storages) {
    // only what the function touches may be read: the getters keep unused variables out of it
    const own = Object.keys(storage.variables).map(
      (suffix) => [suffix, packed.get(name + suffix) ?? vars[name + suffix]!] as const,
    );
    record[name] = storage.weight(Object.fromEntries(own));
  }
  return record;
}
