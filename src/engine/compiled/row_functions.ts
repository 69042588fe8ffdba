/**
 * The functions of a scheduler's rows: states that stay on the device, one text in each row. A step chooses for each row by its own settings.
 * How states come into rows and out of them is in copy_functions.ts.
 */
import * as tf from '@tensorflow/tfjs';
import type { Pieces } from '../../base/pieces.js';
import type { TensorSpec } from '../../jit/index.js';
import { setRow } from '../../jit/ops/set_row.js';
import { rowOf } from './copy_functions.js';
import type { ProgramFunctions, ProgramModel } from './decoding_program.js';
import type { StatesOf } from '../states/cache.js';
import { COUNT, DONE, functions, places, variables } from './names.js';
import { type StateAccess, type StateDtype, type StateVariable, stateVariables } from './program_states.js';
import { allowed, chooseTokens, maskWords, MOST_EOS, ROW_SETTINGS } from './row_settings.js';
import type { Advance } from './step.js';

/** What is kept of each row besides its state: [b, v]. */
const ofRows = (b: number): string[] => [variables.rowsBias(b), variables.rowsHistory(b)];

export interface RowFunctions {
  /** Rows, b. */
  readonly count: number;
  /** Iterations of the loop. */
  readonly block: number;
  readonly advance: Advance;
  readonly access: StateAccess;
  readonly stateDtype?: StateDtype;
  /** See ProgramModel. */
  readonly agreed?: ProgramModel['agreed'];
  /** See DecodingProgramOptions.countedBlocks. */
  readonly counted?: boolean;
}

/** Declares the variables of the rows, and their functions. */
export function defineRows(program: ProgramFunctions, network: StatesOf, rows: RowFunctions): void {
  const { count: b, stateDtype } = rows;
  const v = network.config.vocab_size;
  const own = stateVariables(network, b, stateDtype, places.rows(b));
  for (const { name, shape, dtype } of own) program.variable(name, { shape, dtype });
  for (const name of ofRows(b)) program.variable(name, { shape: [b, v], dtype: 'float32' });

  const row = { row: { shape: [], dtype: 'int32' as const } };
  for (const [name, variable] of [
    [functions.rowBias(b), variables.rowsBias(b)],
    [functions.rowHistory(b), variables.rowsHistory(b)],
  ] as const) {
    program.define(name, { ...row, values: { shape: [v], dtype: 'float32' } }, ({ row, values }, vars) => ({
      assign: { [variable]: setRow(vars[variable]!, row!, values!) },
    }));
  }
  defineSteps(program, v, rows);
}

/** Declares how a row comes from among `from` rows to among `to`, with all that is known of it. */
export function defineMove(
  program: ProgramFunctions,
  network: StatesOf,
  from: number,
  to: number,
  dtype?: StateDtype,
): void {
  const of = (b: number): Pick<StateVariable, 'name' | 'dtype'>[] => [
    ...stateVariables(network, b, dtype, places.rows(b)),
    ...ofRows(b).map((name) => ({ name, dtype: 'float32' as const })),
  ];
  const [source, target] = [of(from), of(to)];
  const scalar = { shape: [], dtype: 'int32' as const };
  program.define(functions.move(from, to), { from: scalar, to: scalar }, (rows, vars) => ({
    assign: Object.fromEntries(
      target.map(({ name }, i) => {
        const row = rowOf(source[i]!, vars, rows['from']!);
        return [name, setRow(vars[name]!, rows['to']!, row)] as const;
      }),
    ),
  }));
}

/** What a step of b rows takes. */
export const rowInputs = (b: number): Record<'left' | 'uniform' | 'settings' | 'eos', TensorSpec> => ({
  left: { shape: [b], dtype: 'float32' },
  uniform: { shape: [b], dtype: 'float32' },
  settings: { shape: [b, ROW_SETTINGS], dtype: 'float32' },
  eos: { shape: [b, MOST_EOS], dtype: 'int32' },
});

/** What rows choose, and what follows from it before the model reads it. */
export interface RowChoice {
  /** bool [b]: rows that have tokens left */
  alive: tf.Tensor;
  /** int32 [b]; negative where a row could choose none */
  token: tf.Tensor1D;
  /** The same, 0 or more */
  fed: tf.Tensor1D;
  /** float32 [b]: how many tokens are left */
  still: tf.Tensor;
  /** float32 [b, v]: what rows have had */
  had: tf.Tensor;
  logits: tf.Tensor;
}

/** Chooses a token for each row that has some left. */
export function chooseRows(
  b: number,
  v: number,
  { left, uniform, settings, eos }: Record<string, tf.Tensor>,
  vars: Record<string, tf.Tensor>,
  change: (scores: tf.Tensor2D) => tf.Tensor2D = (scores) => scores,
  agreed: ProgramModel['agreed'] = (tokens) => tokens,
): RowChoice {
  const logits = vars[variables.logitsOf(places.rows(b))]!;
  const history = vars[variables.rowsHistory(b)] as tf.Tensor2D;
  const alive = tf.greater(left!, 0);
  const scores = change(tf.add(logits, vars[variables.rowsBias(b)]!) as tf.Tensor2D);
  const picked = agreed(chooseTokens(scores, history, uniform as tf.Tensor1D, settings as tf.Tensor2D), vars);
  const token = tf.where(alive, picked, tf.zerosLike(picked)) as tf.Tensor1D;
  const fed = tf.maximum(token, tf.scalar(0, 'int32')) as tf.Tensor1D;
  // one that could choose no id ends too
  const ended = tf.logicalOr(tf.any(tf.equal(eos!, tf.reshape(fed, [b, 1])), 1), tf.less(token, tf.scalar(0, 'int32')));
  const still = tf.where(ended, tf.zerosLike(left!), tf.maximum(tf.sub(left!, 1), 0));
  const column = tf.reshape(alive, [b, 1]);
  const had = tf.where(column, tf.add(history, tf.oneHot(fed, v, 1, 0, 'float32')), history);
  return { alive, token, fed, still, had, logits };
}

function defineSteps(
  program: ProgramFunctions,
  v: number,
  { count: b, block, advance, access, agreed, counted }: RowFunctions,
): void {
  const [logitsOf, historyOf] = [variables.logitsOf(places.rows(b)), variables.rowsHistory(b)];
  const inputs = rowInputs(b);
  /** Chooses and reads a token of each row that has tokens left. */
  const step = function* (
    given: Record<string, tf.Tensor>,
    vars: Record<string, tf.Tensor>,
    change?: (scores: tf.Tensor2D) => tf.Tensor2D,
  ): Pieces<{ outputs: Record<string, tf.Tensor>; assign: Record<string, tf.Tensor>; logits: tf.Tensor }> {
    const { alive, token, fed, still, had, logits } = chooseRows(b, v, given, vars, change, agreed);
    const { states, logits: next } = yield* advance(vars, fed, tf.cast(alive, 'float32'));
    const column = tf.reshape(alive, [b, 1]);
    return {
      outputs: { token, left: still, ...(counted && { [DONE]: tf.logicalNot(tf.any(tf.greater(still, 0))) }) },
      assign: { ...access.assign(states), [logitsOf]: tf.where(column, next, logits), [historyOf]: had },
      logits,
    };
  };
  program.define(functions.rows(b), inputs, function* (given, vars) {
    const { outputs, assign } = yield* step(given, vars);
    return { outputs, assign };
  });
  program.define(
    functions.rowsMasked(b),
    { ...inputs, mask: { shape: [b, maskWords(v)], dtype: 'int32' } },
    function* (given, vars) {
      const { outputs, assign, logits } = yield* step(given, vars, (scores) => allowed(scores, given['mask']!));
      return { outputs: { ...outputs, logits }, assign };
    },
  );
  if (block > 1) {
    const body = functions.rows(b);
    const ends = counted && { count: COUNT, stop: DONE };
    program.defineLoop(functions.rowsLoop(b), {
      body,
      steps: block,
      each: ['uniform'],
      feed: { left: 'left' },
      ...ends,
    });
  }
}
