/** Models of public dimensions whose weights are views of one random pool: nothing is written to disk, nothing is held twice. */
import type { CheckpointSource, TensorInfo } from '../../src/checkpoints/source.js';
import { decodeFloat32, encodeFloat32 } from '../../src/base/stored_dtypes.js';
import type { WeightStorage } from '../../src/layers/storage.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { isMatrix } from '../../src/layers/weights.js';
import { rowStorage } from '../../src/quant/row_form.js';
import { publicConfig } from '../random_checkpoint.js';

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Random numbers around 0 of standard deviation 0.02, as bfloat16. */
function pool(count: number): Uint8Array {
  const unit = new Float32Array(1 << 20);
  let state = 12345;
  for (let i = 0; i < unit.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    unit[i] = (state / 2 ** 31 - 1) * 0.035;
  }
  const bytes = encodeFloat32(unit, 'BF16');
  const out = new Uint8Array(2 * count);
  // a part that is shorter by a prime each time: rows of a matrix differ
  for (let at = 0, cut = 0; at < out.length; cut = (cut + 4 * 1009) % 65536) {
    const part = bytes.subarray(cut, Math.min(bytes.length, cut + out.length - at));
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Numbers that are the same in every process, where they are drawn by chance. */
function seeded<T>(work: () => T): T {
  const { random } = Math;
  let state = 12345;
  Math.random = () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) + 0.5) / 2 ** 32;
  try {
    return work();
  } finally {
    Math.random = random;
  }
}

/** A model of random bfloat16 weights; with `int4`, matrices are random codes in groups of 128. */
export function syntheticModel(name: string, int4: boolean, layers?: number): Mamba2ForCausalLM {
  const config = publicConfig(name, layers);
  const specs = new Mamba2ForCausalLM(config).weights.network.weightSpecs();
  const bytes = pool(Math.max(...specs.map(({ shape }) => size(shape))));
  const tensors = new Map<string, TensorInfo>(
    specs.map((spec) => [
      spec.name,
      {
        name: spec.name,
        shape: spec.shape,
        dtype: isMatrix(spec) ? 'BF16' : 'F32',
        bytes: size(spec.shape) * (isMatrix(spec) ? 2 : 4),
        file: 'random',
      },
    ]),
  );
  const readBytesSync = (key: string): Uint8Array => {
    const spec = specs.find((s) => s.name === key)!;
    const { init, shape } = spec;
    const count = size(shape);
    if (isMatrix(spec)) return bytes.subarray(0, 2 * count);
    const values =
      init.kind === 'values'
        ? seeded(() => init.values(count))
        : new Float32Array(count).fill(init.kind === 'ones' ? 1 : init.kind === 'zeros' ? 0 : 0.1);
    return new Uint8Array(values.buffer);
  };
  const source: CheckpointSource = {
    format: 'hf',
    dir: 'random',
    config: {},
    tensors,
    readBytesSync,
    readBytes: async (key) => readBytesSync(key),
    readFloat32: async (key) => decodeFloat32(readBytesSync(key), tensors.get(key)!.dtype),
    readSlices: () => {
      throw new Error('not sliced');
    },
    close: async () => undefined,
  };
  const model = new Mamba2ForCausalLM(config, source);
  if (int4) {
    for (const spec of specs.filter(isMatrix)) {
      const [out, inner] = spec.shape as [number, number];
      const groups = inner / 128;
      const matrix = {
        bits: 4,
        shape: [out, inner],
        groupSize: 128,
        codes: new Uint8Array(0),
        scale: new Float32Array(0),
        zero: null,
        scaleDtype: 'bfloat16',
      } as const;
      const form = rowStorage(matrix);
      const storage: WeightStorage = {
        weight: form.weight,
        variables: {
          '.codes': { shape: [out, inner / 2], dtype: 'uint8', init: () => bytes.subarray(0, (out * inner) / 2) },
          '.scale': { shape: [out, groups], dtype: 'bfloat16', init: () => new Uint16Array(out * groups).fill(0x3b83) }, // 0.004
          '.zero': { shape: [out, groups], dtype: 'bfloat16', init: () => new Uint16Array(out * groups).fill(0x3b03) }, // 0.002
        },
      };
      const eager = (): never => {
        throw new Error('compiled only');
      };
      model.weights.store(spec.name, { shape: spec.shape, apply: eager, rows: eager, storage: () => storage });
    }
  }
  return model;
}
