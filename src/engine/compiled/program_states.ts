/** How a program holds the states of a batch size: its variables, and the states of a network over them. */
import * as tf from '@tensorflow/tfjs';
import { castFloat32, castTo } from '../../jit/index.js';
import type { LayerState, StateSpec } from '../recurrent_lm.js';
import type { StatesOf } from '../states/cache.js';
import { carriedStates } from '../states/host_state.js';
import { places, variables } from './names.js';

/** Stored type of recurrent states between calls; the arithmetic is float32. bfloat16 halves their traffic and is less exact. */
export type StateDtype = 'float32' | 'bfloat16';

/** A variable of a program's states. */
export interface StateVariable {
  name: string;
  shape: number[];
  dtype: 'float32' | 'bfloat16';
}

/** All state variables of b rows, in order. @param place default the slot of the batch size */
export function stateVariables(
  network: StatesOf,
  b: number,
  dtype: StateDtype = 'float32',
  place: string = places.slot(b),
): StateVariable[] {
  const { num_hidden_layers: layers, vocab_size } = network.config;
  const states = carriedStates(network).flatMap(({ name, shape, keptPer, bfloat16 }): StateVariable[] =>
    keptPer === 'model'
      ? [{ name: variables.ofModel(place, name), shape: [b, layers, ...shape], dtype: 'float32' }]
      : Array.from({ length: layers }, (_, i) => ({
          name: variables.ofLayer(place, i, name),
          shape: [b, ...shape],
          dtype: bfloat16 ? dtype : 'float32',
        })),
  );
  return [...states, { name: variables.logitsOf(place), shape: [b, vocab_size], dtype: 'float32' }];
}

/** How functions of a program come by the states of some rows. */
export interface StateAccess {
  read(vars: Record<string, tf.Tensor>): LayerState[];
  assign(states: readonly LayerState[]): Record<string, tf.Tensor>;
}

/** Reading and assigning the states of a batch size, stored as the options say. */
export function stateAccess(
  network: StatesOf,
  b: number,
  dtype: StateDtype,
  place: string = places.slot(b),
): StateAccess {
  const narrows = (spec: StateSpec): boolean => dtype === 'bfloat16' && spec.bfloat16 === true;
  const carried = carriedStates(network);
  const [perModel, perLayer] = [carried.filter(isPerModel), carried.filter((spec) => !isPerModel(spec))];
  const absent = network.stateSpecs().filter(({ name }) => !carried.some((spec) => spec.name === name));
  return {
    read: (vars) => {
      const together = perModel.map(({ name }) => {
        const layers = vars[variables.ofModel(place, name)]!; // [b, layers, ...shape]
        return { name, layers, each: tf.unstack(layers, 1) };
      });
      return Array.from({ length: network.config.num_hidden_layers }, (_, layer) => {
        const values: Record<string, tf.Tensor> = {};
        const stored: Record<string, tf.Tensor> = {};
        for (const { name, shape } of absent) values[name] = tf.zeros([b, ...shape]);
        for (const { name, each } of together) values[name] = each[layer]!;
        for (const spec of perLayer) {
          const variable = vars[variables.ofLayer(place, layer, spec.name)]!;
          if (narrows(spec)) stored[spec.name] = variable;
          values[spec.name] = narrows(spec) ? castFloat32(variable) : variable;
        }
        const within = Object.fromEntries(together.map(({ name, layers }) => [name, { layers, layer }]));
        return {
          values,
          ...(Object.keys(stored).length > 0 && { stored }),
          ...(together.length > 0 && { within }),
        };
      });
    },
    assign: (states) => ({
      // moved on in place, or one by one
      ...Object.fromEntries(
        perModel.map(({ name }) => [
          variables.ofModel(place, name),
          states.at(-1)?.within?.[name]?.layers ??
            tf.stack(
              states.map(({ values }) => values[name]!),
              1,
            ),
        ]),
      ),
      ...Object.fromEntries(
        perLayer.flatMap((spec) =>
          states.map(({ values, stored }, layer) => [
            variables.ofLayer(place, layer, spec.name),
            narrows(spec) ? (stored?.[spec.name] ?? castTo(values[spec.name]!, 'bfloat16')) : values[spec.name]!,
          ]),
        ),
      ),
    }),
  };
}

const isPerModel = ({ keptPer }: StateSpec): boolean => keptPer === 'model';
