/** States of the compiled engine on the host: as its variables hold them, and as arrays in the form of every engine. */
import type { StateArrays } from '../generation/engine.js';
import { carriedStates } from './decoding_program.js';
import { stateTensors } from './state_arrays.js';
import type { StatesOf } from './states/cache.js';

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

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
export function parkedOf(network: StatesOf, { seen, tensors }: StateArrays): Parked {
  const batch = seen.length;
  const layers = network.config.num_hidden_layers;
  const values = carriedStates(network).flatMap(({ name, keptPer, shape }) => {
    const own = Array.from({ length: layers }, (_, layer) => tensors[`layers.${layer}.${name}`]!.data);
    if (keptPer === 'layer') return own.map((data) => data.slice());
    const size = sizeOf(shape);
    const all = new Float32Array(batch * layers * size); // [b, layers, ...shape]
    own.forEach((data, layer) => {
      for (let row = 0; row < batch; row++)
        all.set(data.subarray(row * size, (row + 1) * size), (row * layers + layer) * size);
    });
    return [all];
  });
  return [...values, tensors['logits']!.data.slice()];
}

/** Variables as arrays; null stands for zeros. @param fed rows that have logits: what the variable holds of others is of no meaning */
export function tensorsOf(network: StatesOf, fed: readonly boolean[], values: Parked | null): StateArrays['tensors'] {
  const batch = fed.length;
  const tensors = stateTensors(network, batch);
  if (!values) return tensors;
  const { num_hidden_layers: layers, vocab_size: v } = network.config;
  let at = 0;
  for (const { name, keptPer, shape } of carriedStates(network)) {
    const own = Array.from({ length: layers }, (_, layer) => tensors[`layers.${layer}.${name}`]!.data);
    if (keptPer === 'layer') {
      for (const data of own) data.set(values[at++]!);
      continue;
    }
    const all = values[at++]!; // [b, layers, ...shape]
    const size = sizeOf(shape);
    own.forEach((data, layer) => {
      for (let row = 0; row < batch; row++) {
        const from = (row * layers + layer) * size;
        data.set(all.subarray(from, from + size), row * size);
      }
    });
  }
  const logits = tensors['logits']!.data;
  fed.forEach((has, row) => has && logits.set(values[at]!.subarray(row * v, (row + 1) * v), row * v));
  return tensors;
}
