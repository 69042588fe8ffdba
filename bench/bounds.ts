/** What a decoding step has to read and to multiply, by a model's dimensions. */
import type { Mamba2Config } from '../src/models/mamba2/config.js';

/** Multiply-adds of the layers' projections for a token, and of the head. */
export function multiplyAdds(config: Mamba2Config): { layers: number; head: number } {
  const { hidden_size, num_heads, head_dim, n_groups, state_size, num_hidden_layers, vocab_size } = config;
  const inner = num_heads * head_dim;
  const input = 2 * inner + 2 * n_groups * state_size + num_heads;
  return { layers: num_hidden_layers * hidden_size * (input + inner), head: hidden_size * vocab_size };
}

/** Bytes that a step reads and writes for each row beside the weights: its states, in float32. */
export function stateBytes({ num_hidden_layers, num_heads, head_dim, state_size }: Mamba2Config): number {
  return 2 * 4 * num_hidden_layers * num_heads * head_dim * state_size;
}

/** Bytes of a weight: int4 has a scale and a zero point of 2 bytes each for 128. */
export const WEIGHT_BYTES = { float32: 4, bfloat16: 2, int4: 0.5 + 4 / 128 } as const;
export type WeightForm = keyof typeof WEIGHT_BYTES;

/** Bytes of the weights that a token reads, and of a row's states. */
export function stepBytes(config: Mamba2Config, form: WeightForm, rows = 1): number {
  const { layers, head } = multiplyAdds(config);
  return (layers + head) * WEIGHT_BYTES[form] + rows * stateBytes(config);
}
