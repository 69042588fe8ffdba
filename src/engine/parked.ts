/** States of the compiled engine on the host: as its variables hold them, and as arrays in the form of every engine. */
import type { StateArrays } from '../generation/engine.js';
import type { Mamba2Config } from '../models/mamba2/config.js';
import { carriesContext } from './decoding_program.js';
import { stateTensors } from './state_arrays.js';

/** A state's variables on the host: one array of row-major float32 per variable, in stateNames order. */
export type Parked = Float32Array[];

/** Some rows of parked variables; repeats allowed. */
export function rowsOf(values: Parked, batch: number, rows: readonly number[]): Parked {
  return values.map((whole) => {
    const size = whole.length / batch;
    const out = new Float32Array(size * rows.length);
    rows.forEach((row, i) => out.set(whole.subarray(row * size, (row + 1) * size), i * size));
    return out;
  });
}

/** Variables from arrays, which were checked. */
export function parkedOf(config: Mamba2Config, { seen, tensors }: StateArrays): Parked {
  const batch = seen.length;
  const layers = Array.from({ length: config.num_hidden_layers }, (_, i) => i);
  const copies = [...layers.map((layer) => `layers.${layer}.ssm`), 'logits'].map((name) => tensors[name]!.data.slice());
  if (!carriesContext(config)) return copies;
  const size = tensors['layers.0.conv']!.data.length / batch;
  const conv = new Float32Array(batch * layers.length * size);
  for (const layer of layers) {
    const { data } = tensors[`layers.${layer}.conv`]!;
    for (let row = 0; row < batch; row++)
      conv.set(data.subarray(row * size, (row + 1) * size), (row * layers.length + layer) * size);
  }
  return [conv, ...copies];
}

/** Variables as arrays; null stands for zeros. @param fed rows that have logits: what the variable holds of others is of no meaning */
export function tensorsOf(
  config: Mamba2Config,
  fed: readonly boolean[],
  values: Parked | null,
): StateArrays['tensors'] {
  const batch = fed.length;
  const tensors = stateTensors(config, batch);
  if (!values) return tensors;
  const layers = config.num_hidden_layers;
  const [contexts, rest] = carriesContext(config) ? [values[0]!, values.slice(1)] : [new Float32Array(0), values];
  for (let layer = 0; layer < layers; layer++) {
    const conv = tensors[`layers.${layer}.conv`]!.data;
    const size = conv.length / batch;
    for (let row = 0; row < batch; row++) {
      const from = (row * layers + layer) * size;
      conv.set(contexts.subarray(from, from + size), row * size);
    }
    tensors[`layers.${layer}.ssm`]!.data.set(rest[layer]!);
  }
  const [logits, v] = [tensors['logits']!.data, config.vocab_size];
  fed.forEach((has, row) => has && logits.set(rest[layers]!.subarray(row * v, (row + 1) * v), row * v));
  return tensors;
}
