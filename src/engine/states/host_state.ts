/** States of the compiled engine on the host: as its variables hold them, and as arrays in the form of every engine. */
import type { Pieces } from '../../base/pieces.js';
import type { StateArrays } from '../../generation/engine.js';
import { stateTensors } from './arrays.js';
import type { StateSpec } from '../recurrent_lm.js';
import type { StatesOf } from './cache.js';

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** The states that a program keeps: those with anything in them. A convolution of one tap looks at its own token alone. */
export function carriedStates(network: StatesOf): StateSpec[] {
  return network.stateSpecs().filter(({ shape }) => shape.every((size) => size > 0));
}

/** A state's variables on the host: one array of row-major float32 per variable, in stateNames order. */
export type HostState = Float32Array[];

/** Some rows of parked variables; repeats allowed. */
export function rowsOf(values: HostState, batch: number, rows: readonly number[]): HostState {
  return values.map((whole) => {
    const size = whole.length / batch;
    const out = new Float32Array(size * rows.length);
    rows.forEach((row, i) => out.set(whole.subarray(row * size, (row + 1) * size), i * size));
    return out;
  });
}

/** Variables from arrays, which were checked; layer by layer, between which others run. */
export function* hostStateOf(network: StatesOf, { seen, tensors }: StateArrays): Pieces<HostState> {
  const batch = seen.length;
  const layers = network.config.num_hidden_layers;
  const values: HostState = [];
  for (const { name, keptPer, shape } of carriedStates(network)) {
    const own = Array.from({ length: layers }, (_, layer) => tensors[`layers.${layer}.${name}`]!.data);
    if (keptPer === 'layer') {
      for (const data of own) {
        values.push(data.slice());
        yield;
      }
      continue;
    }
    const size = sizeOf(shape);
    const all = new Float32Array(batch * layers * size); // [b, layers, ...shape]
    for (const [layer, data] of own.entries()) {
      for (let row = 0; row < batch; row++)
        all.set(data.subarray(row * size, (row + 1) * size), (row * layers + layer) * size);
      yield;
    }
    values.push(all);
  }
  return [...values, tensors['logits']!.data.slice()];
}

/**
 * Variables as arrays, layer by layer, between which others run; null stands for zeros.
 * @param fed rows that have logits: what the variable holds of others is of no meaning
 */
export function* tensorsOf(
  network: StatesOf,
  fed: readonly boolean[],
  values: HostState | null,
): Pieces<StateArrays['tensors']> {
  const batch = fed.length;
  const tensors = stateTensors(network, batch);
  if (!values) return tensors;
  const { num_hidden_layers: layers, vocab_size: v } = network.config;
  let at = 0;
  for (const { name, keptPer, shape } of carriedStates(network)) {
    const own = Array.from({ length: layers }, (_, layer) => tensors[`layers.${layer}.${name}`]!.data);
    if (keptPer === 'layer') {
      for (const data of own) {
        data.set(values[at++]!);
        yield;
      }
      continue;
    }
    const all = values[at++]!; // [b, layers, ...shape]
    const size = sizeOf(shape);
    for (const [layer, data] of own.entries()) {
      for (let row = 0; row < batch; row++) {
        const from = (row * layers + layer) * size;
        data.set(all.subarray(from, from + size), row * size);
      }
      yield;
    }
  }
  const logits = tensors['logits']!.data;
  fed.forEach((has, row) => has && logits.set(values[at]!.subarray(row * v, (row + 1) * v), row * v));
  return tensors;
}
