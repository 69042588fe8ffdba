/**
 * The model as one compiled program: weights and states are variables on the device; prefill segments, the step and
 * the sampling step are functions over them. Traced from the same layers that run eagerly.
 */
import * as tf from '@tensorflow/tfjs';
import { castFloat32, castTo, type CompileHook, type GraphCache, outlineBorder, Program } from '../jit/index.js';
import type { WeightStorage } from '../layers/storage.js';
import { codeDigest } from '../runtime/index.js';
import type { NetworkWeights } from './network_weights.js';
import { declarePack, type Pack, packOf, type ProgramDtype, storageOf, traced } from './program_weights.js';
import type { LayerState, LMConfig, StateSpec } from './recurrent_lm.js';
import { sampleTokens } from './sampling.js';
import type { StatesOf } from './states/cache.js';

export type { ProgramDtype } from './program_weights.js';

export interface DecodingProgramOptions {
  dtype: ProgramDtype;
  /** Batch sizes that functions are defined for. */
  batches: readonly number[];
  /** Prefill lengths, ascending. */
  segments: readonly number[];
  /** Iterations of the in-graph decoding loop; 1 for none. */
  block: number;
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
  /** Prompts are read by one program for each layer in turn, the same for all layers (see DefineOptions). Default false. */
  layered?: boolean;
  /** Keep the small weights in one variable, unless a kernel takes them whole (WeightStorage.takesWhole). Default false. */
  pack?: boolean;
  /** Stored type of the recurrent states. Default float32. */
  stateDtype?: StateDtype;
  /** Folder where the traced graph is kept for the next process. Default: none. */
  graphs?: string | null;
  onCompile?: CompileHook;
}

/** Stored type of recurrent states between calls; the arithmetic is float32. bfloat16 halves their traffic and is less exact. */
export type StateDtype = 'float32' | 'bfloat16';

/** Most candidates that top_k may ask for inside the program. */
export const MAX_TOP_K = 128;

/** Input of counted loops: how many tokens. */
export const COUNT = 'count';

/** Output of what is repeated in them: whether all rows have ended. */
const DONE = 'done';

/** How many tokens a row may choose that has no limit: counting down from it in float32 changes nothing. */
export const UNLIMITED = 2 ** 30;

/** Names of the per-batch variables. */
export const names = {
  /** A state kept per model: all layers in one variable [b, layers, ...]. */
  ofModel: (b: number, state: string): string => `state${b}/${state}`,
  /** A state kept per layer, [b, ...]. */
  ofLayer: (b: number, layer: number, state: string): string => `state${b}/layers.${layer}.${state}`,
  logits: (b: number): string => `state${b}/logits`,
  /** How many tokens each row may still choose, [b]; 0 once it has ended. */
  left: (b: number): string => `state${b}/left`,
  history: (b: number): string => `state${b}/history`,
};

/** The states that a program keeps: those with anything in them. A convolution of one tap looks at its own token alone. */
export function carriedStates(network: StatesOf): StateSpec[] {
  return network.stateSpecs().filter(({ shape }) => shape.every((size) => size > 0));
}

/** A variable of a program's states. */
export interface StateVariable {
  name: string;
  shape: number[];
  dtype: 'float32' | 'bfloat16';
}

/** All state variables of a batch size, in order. */
export function stateVariables(network: StatesOf, b: number, dtype: StateDtype = 'float32'): StateVariable[] {
  const { num_hidden_layers: layers, vocab_size } = network.config;
  const states = carriedStates(network).flatMap(({ name, shape, keptPer, bfloat16 }): StateVariable[] =>
    keptPer === 'model'
      ? [{ name: names.ofModel(b, name), shape: [b, layers, ...shape], dtype: 'float32' }]
      : Array.from({ length: layers }, (_, i) => ({
          name: names.ofLayer(b, i, name),
          shape: [b, ...shape],
          dtype: bfloat16 ? dtype : 'float32',
        })),
  );
  return [...states, { name: names.logits(b), shape: [b, vocab_size], dtype: 'float32' }];
}

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

/** Declares variables and functions for a model; call compile() on the result. */
export function buildDecodingProgram(weights: NetworkWeights, options: DecodingProgramOptions): Program {
  const { network } = weights;
  const { config } = network;
  const storages = new Map<string, WeightStorage>();
  const specs = network.weightSpecs();
  for (const spec of specs) {
    const storage = weights.storage(spec, (s) => storageOf(weights, s, options.dtype));
    storages.set(spec.name, storage);
  }
  const graphCache = graphCacheFor(config, storages, options);
  const program = new Program({ name: network.name, onCompile: options.onCompile, ...(graphCache && { graphCache }) });
  // on a GPU a slice of a variable may become a kernel of its own
  const packs = options.pack && ![...storages.values()].some(({ takesWhole }) => takesWhole);
  const pack: Pack = packs ? packOf(specs, storages) : new Map();
  declarePack(program, pack);
  for (const [name, { variables }] of storages) {
    for (const [suffix, variable] of Object.entries(variables)) {
      if (!pack.has(name + suffix)) program.variable(name + suffix, variable);
    }
  }
  const v = config.vocab_size;
  program.variable('bias', { shape: [v], dtype: 'float32' }); // 0, or -inf where an id is never chosen
  program.variable('eos', { shape: [v], dtype: 'float32' }); // 1 where an id ends a row
  for (const b of options.batches) {
    for (const { name, shape, dtype } of stateVariables(network, b, options.stateDtype))
      program.variable(name, { shape, dtype });
    program.variable(names.left(b), { shape: [b], dtype: 'float32' });
    program.variable(names.history(b), { shape: [b, v], dtype: 'float32' });
    defineFunctions(program, weights, storages, pack, b, options);
  }
  return program;
}

/** Reading and assigning the states of a batch size, stored as the options say. */
function stateAccess(
  network: StatesOf,
  b: number,
  dtype: StateDtype,
): {
  read(vars: Record<string, tf.Tensor>): LayerState[];
  assign(states: readonly LayerState[]): Record<string, tf.Tensor>;
} {
  const narrows = (spec: StateSpec): boolean => dtype === 'bfloat16' && spec.bfloat16 === true;
  const carried = carriedStates(network);
  const [perModel, perLayer] = [carried.filter(isPerModel), carried.filter((spec) => !isPerModel(spec))];
  const absent = network.stateSpecs().filter(({ name }) => !carried.some((spec) => spec.name === name));
  return {
    read: (vars) => {
      const together = perModel.map(({ name }) => {
        const layers = vars[names.ofModel(b, name)]!; // [b, layers, ...shape]
        return { name, layers, each: tf.unstack(layers, 1) };
      });
      return Array.from({ length: network.config.num_hidden_layers }, (_, layer) => {
        const values: Record<string, tf.Tensor> = {};
        const stored: Record<string, tf.Tensor> = {};
        for (const { name, shape } of absent) values[name] = tf.zeros([b, ...shape]);
        for (const { name, each } of together) values[name] = each[layer]!;
        for (const spec of perLayer) {
          const variable = vars[names.ofLayer(b, layer, spec.name)]!;
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
          names.ofModel(b, name),
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
            names.ofLayer(b, layer, spec.name),
            narrows(spec) ? (stored?.[spec.name] ?? castTo(values[spec.name]!, 'bfloat16')) : values[spec.name]!,
          ]),
        ),
      ),
    }),
  };
}

const isPerModel = ({ keptPer }: StateSpec): boolean => keptPer === 'model';

function defineFunctions(
  program: Program,
  weights: NetworkWeights,
  storages: ReadonlyMap<string, WeightStorage>,
  pack: Pack,
  b: number,
  options: DecodingProgramOptions,
): void {
  const { network } = weights;
  const stateDtype = options.stateDtype ?? 'float32';
  const access = stateAccess(network, b, stateDtype);
  const bf16Scan =
    options.bf16Scan && [...storages.values()].some(({ variables }) => variables['']?.dtype === 'bfloat16');

  /** One token per row; rows whose mask is 0 keep their state. */
  const advance = (
    vars: Record<string, tf.Tensor>,
    tokens: tf.Tensor,
    mask?: tf.Tensor,
  ): { states: LayerState[]; logits: tf.Tensor2D } => {
    const w = traced(storages, pack, vars);
    const embedded = network.embed(w, tf.reshape(tokens, [b, 1]));
    const { h, states, handover } = network.hidden(w, embedded, {
      states: access.read(vars),
      mask: mask ? (tf.reshape(mask, [b, 1]) as tf.Tensor2D) : undefined,
      mergeStep: options.mergeStep,
      between: outlineBorder,
      withoutNorm: true,
    });
    return { states, logits: network.normedHead(w, tf.reshape(h, [b, -1]) as tf.Tensor2D, handover) };
  };

  for (const t of options.segments) {
    program.define(
      `prefill${b}x${t}`,
      {
        ids: { shape: [b, t], dtype: 'int32' },
        mask: { shape: [b, t], dtype: 'float32' },
        ends: { shape: [b, t], dtype: 'float32' },
      },
      ({ ids, mask, ends }, vars) => {
        const w = traced(storages, pack, vars);
        const { h, states } = network.hidden(w, network.embed(w, ids as tf.Tensor2D), {
          states: access.read(vars),
          mask: mask as tf.Tensor2D,
          chunkSize: options.chunkSize,
          bf16Scan,
          between: outlineBorder,
        });
        // `ends` has a 1 at a row's last token, if that lies in this segment
        const last = tf.reshape(tf.matMul(tf.reshape(ends!, [b, 1, t]), h), [b, -1]);
        const fresh = network.head(w, last);
        const ended = tf.sum(ends!, 1, true); // [b, 1]
        const old = vars[names.logits(b)]!;
        const logits = tf.where(tf.greater(ended, 0), fresh, old);
        // the output makes a call wait for the device, so that an abort between segments is seen in time
        const fed = tf.sum(ended);
        return { outputs: { fed }, assign: { ...access.assign(states), [names.logits(b)]: logits } };
      },
      { tensorflowProducts: options.kernels ?? true, compileOutlined: options.layered },
    );
  }

  program.define(`step${b}`, { tokens: { shape: [b], dtype: 'int32' } }, ({ tokens }, vars) => {
    const { states, logits } = advance(vars, tokens!);
    return { assign: { ...access.assign(states), [names.logits(b)]: logits } };
  });

  program.define(`logits${b}`, {}, (_, vars) => ({ outputs: { logits: vars[names.logits(b)]! } }));

  program.define(`select${b}`, { rows: { shape: [b], dtype: 'int32' } }, ({ rows }, vars) => ({
    assign: Object.fromEntries(
      stateVariables(network, b, stateDtype).map(({ name, dtype }) => {
        const value = vars[name]!;
        if (dtype === 'float32') return [name, tf.gather(value, rows as tf.Tensor1D)];
        return [name, castTo(tf.gather(castFloat32(value), rows as tf.Tensor1D), 'bfloat16')];
      }),
    ),
  }));

  // choose, then feed: rows that have ended emit the pad id and stay as they are
  const choose = (
    pick: (logits: tf.Tensor2D, vars: Record<string, tf.Tensor>) => tf.Tensor1D,
    pad: tf.Tensor,
    vars: Record<string, tf.Tensor>,
  ): { outputs: Record<string, tf.Tensor>; assign: Record<string, tf.Tensor>; token: tf.Tensor1D } => {
    const left = vars[names.left(b)] as tf.Tensor1D;
    const alive = tf.cast(tf.greater(left, 0), 'float32');
    const picked = pick(vars[names.logits(b)] as tf.Tensor2D, vars);
    const token = tf.where(
      tf.greater(alive, 0),
      picked,
      tf.cast(tf.mul(tf.onesLike(alive), tf.cast(pad, 'float32')), 'int32'),
    ) as tf.Tensor1D;
    // one row that has ended ends a counted loop, so that it needs no mask
    const masked = b > 1 || !options.countedBlocks;
    const { states, logits } = advance(vars, token, masked ? alive : undefined);
    const ended = tf.gather(vars['eos'] as tf.Tensor1D, token);
    const still = tf.mul(tf.maximum(tf.sub(left, 1), 0), tf.sub(1, ended));
    const kept = masked ? tf.where(tf.greater(tf.reshape(left, [b, 1]), 0), logits, vars[names.logits(b)]!) : logits;
    const done = options.countedBlocks && { [DONE]: tf.logicalNot(tf.any(tf.greater(still, 0))) };
    return {
      outputs: { token, ...done },
      assign: { ...access.assign(states), [names.logits(b)]: kept, [names.left(b)]: still },
      token,
    };
  };
  const greedy = (logits: tf.Tensor2D, vars: Record<string, tf.Tensor>): tf.Tensor1D =>
    tf.argMax(tf.add(logits, vars['bias']!), 1) as tf.Tensor1D;

  program.define(`greedy${b}`, { pad: { shape: [], dtype: 'int32' } }, ({ pad }, vars) => {
    const { outputs, assign } = choose(greedy, pad!, vars);
    return { outputs, assign };
  });
  program.define(
    `sample${b}`,
    {
      pad: { shape: [], dtype: 'int32' },
      uniform: { shape: [b], dtype: 'float32' },
      settings: { shape: [5], dtype: 'float32' },
    },
    ({ pad, uniform, settings }, vars) => {
      const history = vars[names.history(b)] as tf.Tensor2D;
      const pick = (logits: tf.Tensor2D): tf.Tensor1D =>
        sampleTokens(
          tf.add(logits, vars['bias']!) as tf.Tensor2D,
          history,
          uniform as tf.Tensor1D,
          settings as tf.Tensor1D,
          MAX_TOP_K,
        );
      const { outputs, assign, token } = choose(pick, pad!, vars);
      const seen = tf.maximum(history, tf.oneHot(token, network.config.vocab_size, 1, 0, 'float32'));
      return { outputs, assign: { ...assign, [names.history(b)]: seen } };
    },
  );
  if (options.block > 1) {
    const loop = { steps: options.block, ...(options.countedBlocks && { count: COUNT, stop: DONE }) };
    program.defineLoop(`greedy${b}loop`, { body: `greedy${b}`, ...loop });
    program.defineLoop(`sample${b}loop`, { body: `sample${b}`, ...loop, each: ['uniform'] });
  }
}
