/**
 * The model as one compiled program: weights and states are variables on the device; prefill segments, the step and
 * the sampling step are functions over them. Traced from the same layers that run eagerly.
 */
import * as tf from '@tensorflow/tfjs';
import type { Pieces } from '../../base/pieces.js';
import { type CompileHook, type GraphCache, Program, type TensorSpec, type VariableSpec } from '../../jit/index.js';
import type { WeightStorage } from '../../layers/storage.js';
import type { WeightSpec } from '../../layers/weights.js';
import type { SumPlace } from '../../jit/ops/all_reduce.js';
import { codeDigest } from '../../runtime/index.js';
import type { NetworkWeights } from '../network_weights.js';
import { type Pack, packOf, type ProgramDtype, storageOf, weightVariables } from './program_weights.js';
import { declareAreas, defineAllCopies, rowsOf, zerosOf } from './copy_functions.js';
import { definePrefill } from './prefill_function.js';
import { stepOf } from './step.js';
import { COUNT, DONE, functions, places, variables } from './names.js';
import { stateAccess, type StateDtype, stateVariables } from './program_states.js';
import { defineMove, defineRows } from './row_functions.js';
import type { LMConfig, RecurrentLM } from '../recurrent_lm.js';
import { bestTokens, sampleTokens, SETTINGS_SIZE } from './sampling.js';

export type { ProgramDtype } from './program_weights.js';

export interface DecodingProgramOptions {
  dtype: ProgramDtype;
  /** Batch sizes that functions are defined for. */
  batches: readonly number[];
  /** Prefill lengths, ascending. */
  segments: readonly number[];
  /** Iterations of the in-graph decoding loop; 1 for none. */
  block: number;
  /** Rows of a scheduler, with functions of their own, and the iterations of their loop. Default: none. */
  rows?: RowsOfProgram;
  /**
   * The loop takes a number of iterations, COUNT, and ends once all rows have. Default false: it makes `block` of them, in which rows that have
   * ended stand still; a GPU would ask the host before each otherwise.
   */
  countedBlocks?: boolean;
  /** Tokens per chunk of the scan. Default: the configuration's, 64 at most. */
  chunkSize?: number;
  /** Prompts are scanned in bfloat16 too where matrices are (see MixerOptions.bf16Scan). Default false. */
  bf16Scan?: boolean;
  /** See MixerOptions.mergeStep. */
  mergeStep?: boolean;
  /** Prompts are multiplied by kernels of TensorFlow (see DefineOptions). Default true. */
  kernels?: boolean;
  /** What meets bfloat16 matrices is rounded to bfloat16 for tokens, too (bfloat16Storage). Default false. */
  roundedRows?: boolean;
  /** Prompts are read by one program for each layer in turn, the same for all layers (see DefineOptions). Default false. */
  layered?: boolean;
  /** Keep the small weights in one variable, unless a kernel takes them whole (WeightStorage.takesWhole). Default false. */
  pack?: boolean;
  /** Stored type of the recurrent states. Default float32. */
  stateDtype?: StateDtype;
  /** Folder where the traced graph is kept for the next process. Default: none. */
  graphs?: string | null;
  /** States become zeros by a function, and not variable by variable: where a run for each costs much. */
  zeroes?: boolean;
  /** Of a model on several devices: where what they add up is added up. Default: between what XLA compiles, on GPUs inside. */
  sums?: SumPlace;
  /** Where whole layers lie on several devices, a segment passes through them in pieces of so many tokens. Default: whole. */
  piece?: number;
  onCompile?: CompileHook;
}

/** The rows of a scheduler. */
export interface RowsOfProgram {
  /** Numbers of rows that there are functions and variables for, ascending: few that run are few in the program. The last is how many there are. */
  readonly sizes: readonly number[];
  /** Iterations of their loops. */
  readonly block: number;
  /** Prompts that are read together, in places of their own; 0 for none. */
  readonly readers: number;
  /** Lengths of the pieces that these are read in, ascending. */
  readonly readerSegments: readonly number[];
  /** States that have a place on the device while nobody goes on with them; 0 for none. */
  readonly kept: number;
}

/** How many tokens a row may choose that has no limit: counting down from it in float32 changes nothing. */
export const UNLIMITED = 2 ** 30;

/** Where the graph is kept, by all that its functions depend on; null where there is no place, or a weight does not say what it computes. */
function graphCacheFor(
  config: LMConfig,
  storages: ReadonlyMap<string, WeightStorage>,
  options: DecodingProgramOptions,
): GraphCache | null {
  const folder = options.graphs ?? null;
  const forms = [...storages].map(([name, { form }]) => [name, form]);
  if (folder === null || forms.some(([, form]) => form === undefined)) return null;
  return { folder, key: JSON.stringify([codeDigest(), config.to_dict(), { ...options, graphs: null }, forms]) };
}

export const MEMORY_ADVICE =
  'Use fewer rows, shorter prompts or segments, or bfloat16 or int4 weights (dtype, quantization_config).';

/** What functions of a program are traced over: the model, and how its weights are stored. */
export interface ProgramModel {
  readonly network: RecurrentLM;
  readonly storages: ReadonlyMap<string, WeightStorage>;
  readonly pack: Pack;
  /** Where several devices choose, int32 [b] each: what the first of them chose. */
  readonly agreed?: (tokens: tf.Tensor1D, vars: Record<string, tf.Tensor>) => tf.Tensor1D;
}

/** What functions are declared in. */
export type ProgramFunctions = Pick<Program, 'define' | 'defineLoop'> & {
  variable(name: string, spec: VariableSpec): void;
};

/** How weights that are stored so are packed: on a GPU a slice of a variable may become a kernel of its own. */
export function packFor(
  specs: readonly WeightSpec[],
  storages: ReadonlyMap<string, WeightStorage>,
  { pack }: DecodingProgramOptions,
): Pack {
  return pack && ![...storages.values()].some(({ takesWhole }) => takesWhole) ? packOf(specs, storages) : new Map();
}

/** Declares variables and functions for a model; call compile() on the result. */
export function buildDecodingProgram(weights: NetworkWeights, options: DecodingProgramOptions): Program {
  const { network } = weights;
  const { config } = network;
  const storages = new Map<string, WeightStorage>();
  const specs = network.weightSpecs();
  for (const spec of specs) {
    const storage = weights.storage(spec, (s) => storageOf(weights, s, options.dtype, options.roundedRows));
    storages.set(spec.name, storage);
  }
  const graphCache = graphCacheFor(config, storages, options);
  const program = new Program({
    name: network.name,
    memoryAdvice: MEMORY_ADVICE,
    onCompile: options.onCompile,
    deferTracing: true,
    ...(graphCache && { graphCache }),
  });
  const pack = packFor(specs, storages, options);
  for (const [name, variable] of weightVariables(storages, pack)) program.variable(name, variable);
  declareFunctions(program, { network, storages, pack }, options);
  return program;
}

/** Declares the variables of states and choices, and all functions. */
export function declareFunctions(
  program: ProgramFunctions,
  model: ProgramModel,
  options: DecodingProgramOptions,
): void {
  const { network } = model;
  const v = network.config.vocab_size;
  program.variable(variables.bias, { shape: [v], dtype: 'float32' });
  program.variable(variables.eos, { shape: [v], dtype: 'float32' });
  for (const b of options.batches) {
    for (const { name, shape, dtype } of stateVariables(network, b, options.stateDtype))
      program.variable(name, { shape, dtype });
    program.variable(variables.left(b), { shape: [b], dtype: 'float32' });
    program.variable(variables.history(b), { shape: [b, v], dtype: 'float32' });
    defineFunctions(program, model, b, options);
  }
  const { rows, stateDtype } = options;
  if (rows) defineReaders(program, model, rows, options);
  for (const [i, count] of (rows?.sizes ?? []).entries()) {
    const access = stateAccess(network, count, stateDtype ?? 'float32', places.rows(count));
    const advance = stepOf(model, count, access, options);
    const { block } = rows!;
    const { agreed } = model;
    defineRows(program, network, { count, block, advance, access, stateDtype, agreed, counted: options.countedBlocks });
    const below = rows!.sizes[i - 1];
    if (below === undefined) continue;
    defineMove(program, network, below, count, stateDtype);
    defineMove(program, network, count, below, stateDtype);
  }
  if (rows) defineAllCopies(program, network, { ...rows, rows: rows.sizes }, stateDtype);
}

/** Places of single rows beside those of slots and rows, and reading prompts in them. */
function defineReaders(
  program: ProgramFunctions,
  model: ProgramModel,
  { sizes, readers: b, readerSegments, kept }: RowsOfProgram,
  options: DecodingProgramOptions,
): void {
  const { network } = model;
  const { stateDtype = 'float32' } = options;
  declareAreas(program, network, { rows: sizes, readers: b, kept }, stateDtype);
  if (b === 0) return;
  const place = places.readers(b);
  const access = stateAccess(network, b, stateDtype, place);
  const logits = variables.logitsOf(place);
  for (const t of readerSegments)
    definePrefill(program, functions.prefillOf(place, t), { model, b, t, access, logits, options });
}

/** What the rows of a batch choose, and what follows from it before the model reads it. */
export interface Chosen {
  /** float32 [b]: how many tokens each row may still choose; 1 where it is more than none; after this one */
  left: tf.Tensor1D;
  alive: tf.Tensor;
  still: tf.Tensor;
  /** int32 [b]; negative where a row could choose none */
  token: tf.Tensor1D;
  /** The same, 0 or more */
  fed: tf.Tensor1D;
}

/** Chooses a token for each row: rows that have ended emit the pad id. */
export function chosen(b: number, pick: Picking, pad: tf.Tensor, vars: Record<string, tf.Tensor>): Chosen {
  const left = vars[variables.left(b)] as tf.Tensor1D;
  const alive = tf.cast(tf.greater(left, 0), 'float32');
  const picked = pick(vars[variables.logits(b)] as tf.Tensor2D, vars);
  const token = tf.where(
    tf.greater(alive, 0),
    picked,
    tf.cast(tf.mul(tf.onesLike(alive), tf.cast(pad, 'float32')), 'int32'),
  ) as tf.Tensor1D;
  const fed = tf.maximum(token, tf.scalar(0, 'int32')) as tf.Tensor1D;
  // one that could choose no id ends too: the caller says what was wrong
  const ended = tf.maximum(tf.gather(vars[variables.eos] as tf.Tensor1D, fed), tf.cast(tf.less(token, 0), 'float32'));
  const still = tf.mul(tf.maximum(tf.sub(left, 1), 0), tf.sub(1, ended));
  return { left, alive, still, token, fed };
}

type Picking = (logits: tf.Tensor2D, vars: Record<string, tf.Tensor>) => tf.Tensor1D;

/** The same choice on all devices. */
const agreeing = (pick: Picking, agreed: ProgramModel['agreed']): Picking =>
  agreed ? (logits, vars) => agreed(pick(logits, vars), vars) : pick;

/** The best id of each row. */
export function pickBest(logits: tf.Tensor2D, vars: Record<string, tf.Tensor>): tf.Tensor1D {
  return bestTokens(tf.add(logits, vars[variables.bias]!) as tf.Tensor2D);
}

/** What sampling takes besides the pad id. */
export const sampleInputs = (b: number): Record<'uniform' | 'settings', TensorSpec> => ({
  uniform: { shape: [b], dtype: 'float32' },
  settings: { shape: [SETTINGS_SIZE], dtype: 'float32' },
});

/** An id of each row by chance. */
export const pickByChance =
  (b: number, { uniform, settings }: Record<string, tf.Tensor>) =>
  (logits: tf.Tensor2D, vars: Record<string, tf.Tensor>): tf.Tensor1D =>
    sampleTokens(
      tf.add(logits, vars[variables.bias]!) as tf.Tensor2D,
      vars[variables.history(b)] as tf.Tensor2D,
      uniform as tf.Tensor1D,
      settings as tf.Tensor1D,
    );

function defineFunctions(
  program: ProgramFunctions,
  model: ProgramModel,
  b: number,
  options: DecodingProgramOptions,
): void {
  const { network, agreed } = model;
  const stateDtype = options.stateDtype ?? 'float32';
  const access = stateAccess(network, b, stateDtype);
  const advance = stepOf(model, b, access, options);

  for (const t of options.segments)
    definePrefill(program, functions.prefill(b, t), { model, b, t, access, logits: variables.logits(b), options });

  program.define(functions.step(b), { tokens: { shape: [b], dtype: 'int32' } }, function* ({ tokens }, vars) {
    const { states, logits } = yield* advance(vars, tokens!);
    return { assign: { ...access.assign(states), [variables.logits(b)]: logits } };
  });

  program.define(functions.logits(b), {}, (_, vars) => ({ outputs: { logits: vars[variables.logits(b)]! } }));

  program.define(functions.select(b), { rows: { shape: [b], dtype: 'int32' } }, ({ rows }, vars) => ({
    assign: Object.fromEntries(
      stateVariables(network, b, stateDtype).map((variable) => [variable.name, rowsOf(variable, vars, rows!)] as const),
    ),
  }));

  if (options.zeroes)
    program.define(functions.zero(b), {}, () => ({
      assign: Object.fromEntries(stateVariables(network, b, stateDtype).map((one) => [one.name, zerosOf(one)])),
    }));

  // choose, then feed: rows that have ended emit the pad id and stay as they are
  const choose = function* (
    pick: Picking,
    pad: tf.Tensor,
    vars: Record<string, tf.Tensor>,
  ): Pieces<{ outputs: Record<string, tf.Tensor>; assign: Record<string, tf.Tensor>; token: tf.Tensor1D }> {
    const { left, alive, token, fed, still } = chosen(b, agreeing(pick, agreed), pad, vars);
    // one row that has ended ends a counted loop, so that it needs no mask
    const masked = b > 1 || !options.countedBlocks;
    const { states, logits } = yield* advance(vars, fed, masked ? alive : undefined);
    const kept = masked
      ? tf.where(tf.greater(tf.reshape(left, [b, 1]), 0), logits, vars[variables.logits(b)]!)
      : logits;
    const done = options.countedBlocks && { [DONE]: tf.logicalNot(tf.any(tf.greater(still, 0))) };
    return {
      outputs: { token, ...done },
      assign: { ...access.assign(states), [variables.logits(b)]: kept, [variables.left(b)]: still },
      token,
    };
  };
  program.define(functions.greedy(b), { pad: { shape: [], dtype: 'int32' } }, function* ({ pad }, vars) {
    const { outputs, assign } = yield* choose(pickBest, pad!, vars);
    return { outputs, assign };
  });
  program.define(
    functions.sample(b),
    { pad: { shape: [], dtype: 'int32' }, ...sampleInputs(b) },
    function* ({ pad, ...given }, vars) {
      const history = vars[variables.history(b)] as tf.Tensor2D;
      const pick = pickByChance(b, given);
      const { outputs, assign, token } = yield* choose(pick, pad!, vars);
      const seen = tf.maximum(history, tf.oneHot(token, network.config.vocab_size, 1, 0, 'float32'));
      return { outputs, assign: { ...assign, [variables.history(b)]: seen } };
    },
  );
  if (options.block > 1) {
    const loop = { steps: options.block, ...(options.countedBlocks && { count: COUNT, stop: DONE }) };
    program.defineLoop(functions.greedyLoop(b), { body: functions.greedy(b), ...loop });
    program.defineLoop(functions.sampleLoop(b), { body: functions.sample(b), ...loop, each: ['uniform'] });
  }
}
