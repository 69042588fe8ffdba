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

/** Layers of a program that lie on one device: the first, and the one after the last. */
export interface LayerRange {
  readonly from: number;
  readonly to: number;
}

/** What layers keep in one variable: all of them, or those of a range. */
const together = (place: string, state: string, range?: LayerRange): string =>
  variables.ofModel(place, range ? `${state}.${range.from}` : state);

/** All state variables of b rows, in order. @param place default the slot of the batch size */
export function stateVariables(
  network: StatesOf,
  b: number,
  dtype: StateDtype = 'float32',
  place: string = places.slot(b),
): StateVariable[] {
  return [...layerVariables(network, b, dtype, place), logitsVariable(network, b, place)];
}

/** The state variables of layers, in order. @param range those of some layers. Default: of all, and where a variable has them together, all */
export function layerVariables(
  network: StatesOf,
  b: number,
  dtype: StateDtype,
  place: string,
  range?: LayerRange,
): StateVariable[] {
  const { from, to } = range ?? { from: 0, to: network.config.num_hidden_layers };
  return carriedStates(network).flatMap(({ name, shape, keptPer, bfloat16 }): StateVariable[] =>
    keptPer === 'model'
      ? [{ name: together(place, name, range), shape: [b, to - from, ...shape], dtype: 'float32' }]
      : Array.from({ length: to - from }, (_, i) => ({
          name: variables.ofLayer(place, from + i, name),
          shape: [b, ...shape],
          dtype: bfloat16 ? dtype : 'float32',
        })),
  );
}

/** Of the logits of b rows. */
export function logitsVariable(network: StatesOf, b: number, place: string): StateVariable {
  return { name: variables.logitsOf(place), shape: [b, network.config.vocab_size], dtype: 'float32' };
}

/** How functions of a program come by the states of some rows. */
export interface StateAccess {
  read(vars: Record<string, tf.Tensor>): LayerState[];
  assign(states: readonly LayerState[]): Record<string, tf.Tensor>;
}

/** Reading and assigning the states of a batch size, stored as the options say. @param range only those of some layers: others are not there to be read */
export function stateAccess(
  network: StatesOf,
  b: number,
  dtype: StateDtype,
  place: string = places.slot(b),
  range?: LayerRange,
): StateAccess {
  const { from, to } = range ?? { from: 0, to: network.config.num_hidden_layers };
  const narrows = (spec: StateSpec): boolean => dtype === 'bfloat16' && spec.bfloat16 === true;
  const carried = carriedStates(network);
  const [perModel, perLayer] = [carried.filter(isPerModel), carried.filter((spec) => !isPerModel(spec))];
  const absent = network.stateSpecs().filter(({ name }) => !carried.some((spec) => spec.name === name));
  return {
    read: (vars) => {
      const shared = perModel.map(({ name }) => {
        const layers = vars[together(place, name, range)]!; // [b, layers, ...shape]
        return { name, layers, each: tf.unstack(layers, 1) };
      });
      const states: LayerState[] = [];
      for (let layer = from; layer < to; layer++) {
        const values: Record<string, tf.Tensor> = {};
        const stored: Record<string, tf.Tensor> = {};
        for (const { name, shape } of absent) values[name] = tf.zeros([b, ...shape]);
        for (const { name, each } of shared) values[name] = each[layer - from]!;
        for (const spec of perLayer) {
          const variable = vars[variables.ofLayer(place, layer, spec.name)]!;
          if (narrows(spec)) stored[spec.name] = variable;
          values[spec.name] = narrows(spec) ? castFloat32(variable) : variable;
        }
        const within = Object.fromEntries(shared.map(({ name, layers }) => [name, { layers, layer: layer - from }]));
        states[layer] = {
          values,
          ...(Object.keys(stored).length > 0 && { stored }),
          ...(shared.length > 0 && { within }),
        };
      }
      return states;
    },
    assign: (states) => ({
      // moved on in place, or one by one
      ...Object.fromEntries(
        perModel.map(({ name }) => [
          together(place, name, range),
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
            variables.ofLayer(place, from + layer, spec.name),
            narrows(spec) ? (stored?.[spec.name] ?? castTo(values[spec.name]!, 'bfloat16')) : values[spec.name]!,
          ]),
        ),
      ),
    }),
  };
}

const isPerModel = ({ keptPer }: StateSpec): boolean => keptPer === 'model';
