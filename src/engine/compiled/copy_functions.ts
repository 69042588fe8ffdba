/** How the state of one row comes from one place of a program to another: on the device, whatever else lies in either place. */
import * as tf from '@tensorflow/tfjs';
import { castFloat32, castTo } from '../../jit/index.js';
import { setRow, setRows } from '../../jit/ops/set_row.js';
import type { StatesOf } from '../states/cache.js';
import type { ProgramFunctions } from './decoding_program.js';
import { functions, places } from './names.js';
import { type StateDtype, type StateVariable, stateVariables } from './program_states.js';

/** The places of single rows that a program has. */
export interface Areas {
  /** Numbers of rows of a scheduler. */
  readonly rows: readonly number[];
  /** Prompts that are read together; 0 for none. */
  readonly readers: number;
  /** States that are kept; 0 for none. */
  readonly kept: number;
}

/** A place's name and how many rows it has. */
type Place = readonly [name: string, rows: number];

/** Rows `rows`, int32 [r], of a variable, [r, ...shape] in its own type. Traced code only. */
export function rowsOf(
  { name, dtype }: Pick<StateVariable, 'name' | 'dtype'>,
  vars: Record<string, tf.Tensor>,
  rows: tf.Tensor,
): tf.Tensor {
  const at = rows as tf.Tensor1D;
  if (dtype === 'float32') return tf.gather(vars[name]!, at);
  return castTo(tf.gather(castFloat32(vars[name]!), at), dtype);
}

/** Zeros in the type of a variable. Traced code only. */
export function zerosOf({ shape, dtype }: Pick<StateVariable, 'shape' | 'dtype'>): tf.Tensor {
  const zeros = tf.zeros(shape);
  return dtype === 'float32' ? zeros : castTo(zeros, dtype);
}

/** Row `row`, a scalar, of a variable, [1, ...shape] in its own type. Traced code only. */
export function rowOf(
  variable: Pick<StateVariable, 'name' | 'dtype'>,
  vars: Record<string, tf.Tensor>,
  row: tf.Tensor,
): tf.Tensor {
  return rowsOf(variable, vars, tf.reshape(row, [1]));
}

/** Declares the variables of readers and of kept states; those of slots and rows are there. */
export function declareAreas(
  program: ProgramFunctions,
  network: StatesOf,
  { readers, kept }: Areas,
  dtype?: StateDtype,
): void {
  for (const [name, count] of [
    [places.readers(readers), readers],
    [places.kept(kept), kept],
  ] as const)
    if (count > 0)
      for (const variable of stateVariables(network, count, dtype, name))
        program.variable(variable.name, { shape: variable.shape, dtype: variable.dtype });
}

/**
 * Declares the copies between places. A copy of one row is a function; where prompts are read together, as many rows as there are
 * readers go in one call, too: what a call costs besides is then paid once.
 */
export function defineAllCopies(program: ProgramFunctions, network: StatesOf, areas: Areas, dtype?: StateDtype): void {
  const slot: Place = [places.slot(1), 1];
  const rows = areas.rows.map((count): Place => [places.rows(count), count]);
  const readers: Place[] = areas.readers > 0 ? [[places.readers(areas.readers), areas.readers]] : [];
  const kept: Place[] = areas.kept > 0 ? [[places.kept(areas.kept), areas.kept]] : [];
  const one = (from: Place, to: Place): void => defineCopy(program, network, from, to, dtype);
  const many = (from: Place, to: Place): void => {
    one(from, to);
    if (areas.readers < 2) return;
    defineCopies(program, network, from, to, { count: areas.readers, dtype });
  };
  for (const row of rows) {
    one(slot, row);
    one(row, slot);
    for (const reader of readers) many(reader, row);
    for (const place of kept) {
      many(place, row);
      many(row, place);
    }
  }
  for (const place of [...readers, ...kept]) {
    one(slot, place);
    one(place, slot);
  }
  for (const reader of readers)
    for (const place of kept) {
      many(reader, place);
      many(place, reader);
    }
  for (const place of [slot, ...readers]) defineClear(program, network, place, dtype);
}

/** The variables of one place, and the names of the same in another. */
function besideEachOther(
  network: StatesOf,
  [from, rows]: Place,
  [to, others]: Place,
  dtype?: StateDtype,
): { source: StateVariable; name: string }[] {
  const target = stateVariables(network, others, dtype, to);
  return stateVariables(network, rows, dtype, from).map((source, i) => ({ source, name: target[i]!.name }));
}

function defineCopy(program: ProgramFunctions, network: StatesOf, from: Place, to: Place, dtype?: StateDtype): void {
  const scalar = { shape: [], dtype: 'int32' as const };
  program.define(functions.copy(from[0], to[0]), { from: scalar, to: scalar }, (at, vars) => ({
    assign: Object.fromEntries(
      besideEachOther(network, from, to, dtype).map(({ source, name }) => {
        const row = from[1] === 1 ? vars[source.name]! : rowOf(source, vars, at['from']!); // [1, ...]
        return [name, to[1] === 1 ? row : setRow(vars[name]!, at['to']!, row)] as const;
      }),
    ),
  }));
}

/** Copies of `count` rows: all of a variable at once, as a loop over rows would launch the copies of all variables so many times. */
function defineCopies(
  program: ProgramFunctions,
  network: StatesOf,
  from: Place,
  to: Place,
  { count, dtype }: { count: number; dtype?: StateDtype | undefined },
): void {
  const rows = { shape: [count], dtype: 'int32' as const };
  program.define(functions.copies(from[0], to[0]), { from: rows, to: rows }, (at, vars) => ({
    assign: Object.fromEntries(
      besideEachOther(network, from, to, dtype).map(({ source, name }) => [
        name,
        setRows(vars[name]!, at['to']!, rowsOf(source, vars, at['from']!)),
      ]),
    ),
  }));
}

/** Rows whose `keep` is 0 become zeros: texts that have not begun. */
function defineClear(program: ProgramFunctions, network: StatesOf, [place, b]: Place, dtype?: StateDtype): void {
  const inputs = { keep: { shape: [b], dtype: 'float32' as const } };
  program.define(functions.clear(place), inputs, ({ keep }, vars) => ({
    assign: Object.fromEntries(
      stateVariables(network, b, dtype, place).map(({ name, shape, dtype }) => {
        const value = castFloat32(vars[name]!);
        const stays = tf.reshape(tf.greater(keep!, 0), [b, ...shape.slice(1).map(() => 1)]);
        const kept = tf.where(stays, value, tf.zerosLike(value)); // what was there may be no number
        return [name, dtype === 'float32' ? kept : castTo(kept, dtype)] as const;
      }),
    ),
  }));
}
