/** Checkpoints in memory and on disk, for tests: described by a configuration, filled with seeded numbers. */
import { BytesInMemory } from '../../src/base/files.js';
import { DTYPE_BYTES, encodeFloat32, type FloatDtype } from '../../src/base/stored_dtypes.js';
import type { OutTensor, StoredDtype } from '../../src/checkpoints/index.js';
import { expectedTensors } from '../../src/models/mamba2/checkpoint/shapes.js';
import type { Container, ContainerTensor } from '../../src/checkpoints/container.js';

/** The smallest configuration that is one: 2 layers, 2 groups of 2 heads. */
export const TINY_CONFIG = {
  model_type: 'mamba2',
  num_hidden_layers: 2,
  hidden_size: 8,
  expand: 2,
  num_heads: 4,
  head_dim: 4,
  n_groups: 2,
  state_size: 3,
  conv_kernel: 4,
  vocab_size: 11,
  chunk_size: 4,
  tie_word_embeddings: false,
  time_step_limit: [0, Infinity],
};

/** Seeded numbers between -1 and 1. */
function randomFloats(count: number, seed: number): Float32Array {
  let state = seed * 2654435761 + 1;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32) * 2 - 1;
  });
}

/** The tensors of a configuration, with seeded contents. */
export function randomTensors(config: Record<string, unknown>, dtype: FloatDtype = 'F32'): OutTensor[] {
  return [...expectedTensors(config)].map(([name, shape], i) => {
    const bytes = encodeFloat32(randomFloats(shape.reduce((a, b) => a * b, 1), i + 1), dtype); // prettier-ignore
    return { name, dtype, shape, data: () => bytes };
  });
}

/** A tensor of zeros. */
export function zeros(name: string, shape: number[], dtype: StoredDtype = 'F32'): OutTensor {
  const bytes = new Uint8Array(shape.reduce((a, b) => a * b, 1) * DTYPE_BYTES[dtype]);
  return { name, dtype, shape, data: () => bytes };
}

/** Tensors as a container, under the names that they have. */
export function containerOf(tensors: readonly OutTensor[]): Container {
  const parts = new Map<string, ContainerTensor>();
  for (const { name, dtype, shape, data } of tensors) {
    const bytes = data() as Uint8Array;
    const memory = new BytesInMemory('memory', bytes);
    parts.set(name, {
      dtype,
      shape,
      bytes: bytes.byteLength,
      file: 'memory',
      read: () => memory.read(0, bytes.byteLength),
      readSync: () => memory.readSync(0, bytes.byteLength),
      async *slices(maxBytes) {
        for (let at = 0; at < bytes.byteLength; at += maxBytes) yield bytes.slice(at, at + maxBytes);
      },
    });
  }
  return { tensors: parts, close: () => Promise.resolve() };
}
