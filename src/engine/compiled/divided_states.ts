/** How a program on several devices holds states: what a variable has of all layers elsewhere is in one for each run of layers here. */
import type { Division } from '../placement/division.js';
import type { StatesOf } from '../states/cache.js';
import { carriedStates, type HostState } from '../states/host_state.js';
import { places } from './names.js';
import {
  layerVariables,
  logitsVariable,
  type StateDtype,
  type StateVariable,
  stateVariables,
} from './program_states.js';

/** The state variables of a program, and their values in the order of one on a single device. */
export interface StateLayout {
  /** @param place default the slot of the batch size */
  variables(rows: number, place?: string): StateVariable[];
  /** Values of the variables, from those of a program on one device. */
  parts(values: HostState, rows: number): HostState;
  /** And back. */
  whole(parts: HostState, rows: number): HostState;
}

/** Variables of the states and the device of each. */
export function placedStates(
  network: StatesOf,
  { runs, head }: Division,
  rows: number,
  dtype: StateDtype,
  place: string,
): (StateVariable & { device: number })[] {
  const layers = runs.flatMap((run) => layerVariables(network, rows, dtype, place, run).map((one) => ({ ...one, device: run.device }))); // prettier-ignore
  return [...layers, { ...logitsVariable(network, rows, place), device: head }];
}

/** Columns from..to of [rows, all, size] as [rows, to - from, size], and the other way. */
function columns(
  whole: Float32Array,
  rows: number,
  all: number,
  [from, to]: readonly [number, number],
  into?: Float32Array,
): Float32Array {
  // prettier-ignore
  const size = whole.length / (rows * all);
  const width = (to - from) * size;
  const part = into ?? new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    const at = (row * all + from) * size;
    if (into) whole.set(part.subarray(row * width, (row + 1) * width), at);
    else part.set(whole.subarray(at, at + width), row * width);
  }
  return part;
}

export function stateLayout(network: StatesOf, dtype: StateDtype, division: Division | null): StateLayout {
  if (!division)
    return {
      variables: (rows, place) => stateVariables(network, rows, dtype, place),
      parts: (values) => values,
      whole: (parts) => parts,
    };
  const { runs } = division;
  const layers = network.config.num_hidden_layers;
  const states = carriedStates(network);
  return {
    variables: (rows, place = places.slot(rows)) => placedStates(network, division, rows, dtype, place),
    parts: (values, rows) => {
      const logits = values.at(-1)!;
      // where the values of each state begin
      let at = 0;
      const begins = states.map(({ keptPer }) => {
        const begin = at;
        at += keptPer === 'model' ? 1 : layers;
        return begin;
      });
      const parts = runs.flatMap(({ from, to }) =>
        states.flatMap(({ keptPer }, s) =>
          keptPer === 'model'
            ? [columns(values[begins[s]!]!, rows, layers, [from, to])]
            : values.slice(begins[s]! + from, begins[s]! + to),
        ),
      );
      return [...parts, logits];
    },
    whole: (parts, rows) => {
      const found: Float32Array[][] = states.map(() => []);
      let at = 0;
      for (const { from, to } of runs)
        for (const [s, { keptPer, shape }] of states.entries()) {
          if (keptPer === 'layer') {
            found[s]!.push(...parts.slice(at, at + to - from));
            at += to - from;
            continue;
          }
          found[s]![0] ??= new Float32Array(rows * layers * shape.reduce((a, n) => a * n, 1));
          columns(found[s]![0], rows, layers, [from, to], parts[at++]);
        }
      return [...found.flat(), parts.at(-1)!];
    },
  };
}
