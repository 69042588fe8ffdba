/** States on the host: the names and sizes that every engine of this model, and the files of states, agree on. */
import { ArgumentError } from '../../base/errors.js';
import type { StateArrays } from '../../generation/engine.js';
import type { StatesOf } from './cache.js';

/** Shapes by name: `layers.I.NAME` [b, ...] for each state of a layer (of Mamba-2 conv and ssm), and `logits` [b, v]. */
export function stateTensorShapes(network: StatesOf, batch: number): Record<string, number[]> {
  const { num_hidden_layers, vocab_size } = network.config;
  const specs = network.stateSpecs();
  const shapes: Record<string, number[]> = {};
  for (let i = 0; i < num_hidden_layers; i++) {
    for (const { name, shape } of specs) shapes[`layers.${i}.${name}`] = [batch, ...shape];
  }
  shapes['logits'] = [batch, vocab_size];
  return shapes;
}

/** Arrays of zeros, to be filled. */
export function stateTensors(
  network: StatesOf,
  batch: number,
): Record<string, { shape: number[]; data: Float32Array }> {
  const entries = Object.entries(stateTensorShapes(network, batch));
  return Object.fromEntries(
    entries.map(([name, shape]) => [name, { shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)) }]),
  );
}

/**
 * Checks that arrays are a state of such a model.
 * @returns the number of rows
 * @throws ArgumentError naming the tensor, and both sizes
 */
export function checkStateArrays(network: StatesOf, { seen, fed, tensors }: StateArrays): number {
  const batch = seen.length;
  if (batch < 1 || fed.length !== batch || seen.some((n) => !Number.isSafeInteger(n) || n < 0)) {
    throw new ArgumentError(
      `state: seen is [${seen}] and fed [${fed}]; expected a count of tokens and true or false for each row`,
      { seen, fed },
    );
  }
  const shapes = stateTensorShapes(network, batch);
  for (const [name, shape] of Object.entries(shapes)) {
    const size = shape.reduce((a, b) => a * b, 1);
    const got = tensors[name];
    if (!got || got.shape.join() !== shape.join() || got.data.length !== size) {
      throw new ArgumentError(
        `state: ${name} is ${got ? `[${got.shape.join(', ')}] of ${got.data.length} values` : 'missing'}, expected [${shape.join(', ')}]`,
        {
          name,
          got: got?.shape,
          expected: shape,
        },
      );
    }
  }
  const extra = Object.keys(tensors).find((name) => !(name in shapes));
  if (extra !== undefined)
    throw new ArgumentError(`state: has a tensor ${extra}, which this model has not`, { name: extra });
  return batch;
}

/** States one below the other: rows of the first, then of the next. @throws ArgumentError when they are not of one model */
export function stackStateArrays(network: StatesOf, states: readonly StateArrays[]): StateArrays {
  const batch = states.reduce((sum, state) => sum + checkStateArrays(network, state), 0);
  const tensors = stateTensors(network, batch);
  for (const [name, { data }] of Object.entries(tensors)) {
    let at = 0;
    for (const state of states) {
      data.set(state.tensors[name]!.data, at);
      at += state.tensors[name]!.data.length;
    }
  }
  return { seen: states.flatMap(({ seen }) => seen), fed: states.flatMap(({ fed }) => fed), tensors };
}

/** One row of a state, as a state of its own. */
export function rowOfStateArrays({ seen, fed, tensors }: StateArrays, row: number): StateArrays {
  const parts = Object.entries(tensors).map(([name, { shape, data }]) => {
    const size = data.length / seen.length;
    return [name, { shape: [1, ...shape.slice(1)], data: data.slice(row * size, (row + 1) * size) }] as const;
  });
  return { seen: [seen[row]!], fed: [fed[row]!], tensors: Object.fromEntries(parts) };
}
