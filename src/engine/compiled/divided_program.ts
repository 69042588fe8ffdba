/**
 * The model as one program over several devices: embedding, runs of layers, norm and head where a division says, each with its weights and states. The
 * functions are those of a decoding program (decoding_program.ts); each is a sequence of parts, one a device, between which the stream passes.
 */
import * as tf from '@tensorflow/tfjs';
import type { Pieces } from '../../base/pieces.js';
import { outlineBorder, type TensorSpec, type TraceResult } from '../../jit/index.js';
import { setRow } from '../../jit/ops/set_row.js';
import { PlacedProgram } from '../../jit/program/placed.js';
import type { WeightStorage } from '../../layers/storage.js';
import type { Weights } from '../../layers/weights.js';
import { onGpu } from '../../runtime/index.js';
import type { NetworkWeights } from '../network_weights.js';
import { type Division, moduleRoles } from '../placement/division.js';
import { hiddenOf, type LayerState } from '../recurrent_lm.js';
import { chosen, type DecodingProgramOptions, MEMORY_ADVICE, pickBest, pickByChance, sampleInputs } from './decoding_program.js'; // prettier-ignore
import { placedStates } from './divided_states.js';
import { functions, places, variables } from './names.js';
import { stateAccess, type StateDtype } from './program_states.js';
import { logitsAtEnds } from './prefill_function.js';
import { storageOf, traced } from './program_weights.js';
import { rowOf, rowsOf, zerosOf } from './copy_functions.js';
import { chooseRows, rowInputs } from './row_functions.js';
import { allowed, maskWords } from './row_settings.js';

type Tensors = Record<string, tf.Tensor>;
type Specs = Record<string, TensorSpec>;

const int32 = (...shape: number[]): TensorSpec => ({ shape, dtype: 'int32' });
const float32 = (...shape: number[]): TensorSpec => ({ shape, dtype: 'float32' });

/** Steps of the model that follow one another on a device. */
interface Stretch {
  device: number;
  embeds: boolean;
  runs: Division['runs'];
  norms: boolean;
  heads: boolean;
}

/** The model as stretches, in the order in which they run. */
export function stretchesOf({ embedding, runs, norm, head }: Division): Stretch[] {
  const all: Stretch[] = [];
  const on = (device: number): Stretch => {
    const last = all.at(-1);
    if (last?.device === device) return last;
    const next: Stretch = { device, embeds: false, runs: [], norms: false, heads: false };
    all.push(next);
    return next;
  };
  on(embedding).embeds = true;
  for (const run of runs) {
    const stretch = on(run.device);
    stretch.runs = [...stretch.runs, run];
  }
  on(norm).norms = true;
  on(head).heads = true;
  return all;
}

/** In a tied model whose head is not where the embedding is, the matrix lies on both devices. */
const HEAD_COPY = 'head/';

/** Declares variables, parts and functions for a model; call compile() on the result. */
export function buildDividedProgram(
  weights: NetworkWeights,
  options: DecodingProgramOptions,
  division: Division,
): PlacedProgram {
  const { network } = weights;
  const program = new PlacedProgram({
    name: network.name,
    devices: division.devices,
    gpu: onGpu(),
    memoryAdvice: MEMORY_ADVICE,
    onCompile: options.onCompile,
  });
  try {
    new DividedFunctions(weights, options, division, program).define();
    return program;
  } catch (error) {
    program.dispose();
    throw error;
  }
}

class DividedFunctions {
  private readonly stretches: Stretch[];
  /** How weights are stored, and where they lie. */
  private readonly storages = new Map<string, { storage: WeightStorage; device: number }>();
  private readonly dtype: StateDtype;
  private readonly v: number;
  private readonly d: number;

  constructor(
    private readonly weights: NetworkWeights,
    private readonly options: DecodingProgramOptions,
    private readonly division: Division,
    private readonly program: PlacedProgram,
  ) {
    const { vocab_size, hidden_size } = weights.network.config;
    [this.v, this.d] = [vocab_size, hidden_size];
    this.dtype = options.stateDtype ?? 'float32';
    this.stretches = stretchesOf(division);
  }

  define(): void {
    const { program, options, v } = this;
    this.declareWeights();
    const { head } = this.division;
    program.variable(variables.bias, float32Variable(v), head);
    program.variable(variables.eos, float32Variable(v), head);
    for (const b of options.batches) {
      this.declareStates(b, places.slot(b));
      program.variable(variables.left(b), float32Variable(b), head);
      program.variable(variables.history(b), float32Variable(b, v), head);
      this.defineBatch(b);
    }
    const { rows } = options;
    for (const [i, count] of (rows?.sizes ?? []).entries()) {
      this.declareStates(count, places.rows(count));
      for (const name of ofRows(count)) program.variable(name, float32Variable(count, v), head);
      this.defineRows(count, rows!.block);
      const below = rows!.sizes[i - 1];
      if (below === undefined) continue;
      this.defineMove(below, count);
      this.defineMove(count, below);
    }
  }

  private declareWeights(): void {
    const { network } = this.weights;
    const { division, program } = this;
    const roles = moduleRoles(network);
    const inModule = (name: string, module: string): boolean => name.startsWith(`${module}.`);
    const deviceOf = (name: string): number => {
      if (inModule(name, roles.embedding)) return division.embedding;
      if (inModule(name, roles.head)) return division.head;
      const layer = roles.layers.findIndex((module) => inModule(name, module));
      return layer < 0 ? division.norm : division.runs.find(({ to }) => layer < to)!.device;
    };
    for (const spec of network.weightSpecs()) {
      const storage = this.weights.storage(spec, (s) =>
        storageOf(this.weights, s, this.options.dtype, this.options.roundedRows),
      );
      this.storages.set(spec.name, { storage, device: deviceOf(spec.name) });
    }
    const { embedding } = network.names;
    if (network.config.tie_word_embeddings && division.embedding !== division.head)
      this.storages.set(HEAD_COPY + embedding, { storage: this.storages.get(embedding)!.storage, device: division.head }); // prettier-ignore
    for (const [name, { storage, device }] of this.storages)
      for (const [suffix, variable] of Object.entries(storage.variables))
        program.variable(name + suffix, variable, device);
  }

  private declareStates(b: number, place: string): void {
    for (const { name, shape, dtype, device } of this.states(b, place)) this.program.variable(name, { shape, dtype }, device); // prettier-ignore
  }

  private states(b: number, place: string): ReturnType<typeof placedStates> {
    return placedStates(this.weights.network, this.division, b, this.dtype, place);
  }

  /** Weights of a device by the network's names. */
  private of(device: number, vars: Tensors): Weights {
    const own = [...this.storages].filter(([, one]) => one.device === device);
    const record = traced(new Map(own.map(([name, { storage }]) => [name, storage])), new Map(), vars);
    const copy = own.find(([name]) => name.startsWith(HEAD_COPY))?.[0];
    return copy === undefined ? record : { ...record, [copy.slice(HEAD_COPY.length)]: record[copy]! };
  }

  /**
   * The runs of a stretch, and the norm where it is part of it.
   * @param h [b, t, d] @param run what blocks are given
   */
  private *layers(
    { device, runs, norms }: Stretch,
    b: number,
    place: string,
    vars: Tensors,
    h: tf.Tensor3D,
    run: Record<string, unknown>,
    withoutNorm: boolean,
  ): Pieces<{ h: tf.Tensor3D; assign: Tensors; handover: unknown }> {
    const { network } = this.weights;
    const w = this.of(device, vars);
    const all = network.config.num_hidden_layers;
    let assign: Tensors = {};
    let handover: unknown;
    let normed = false;
    for (const { from, to } of runs) {
      const access = stateAccess(network, b, this.dtype, place, { from, to });
      const states: readonly LayerState[] = access.read(vars);
      const norm = to === all && norms && !withoutNorm;
      const out = yield* hiddenOf(network, w, h, {
        ...run,
        states,
        layers: [from, to],
        between: outlineBorder,
        withoutNorm: !norm,
      });
      h = out.h;
      handover = out.handover;
      normed ||= norm;
      assign = { ...assign, ...access.assign(out.states) };
    }
    if (norms && !withoutNorm && !normed) h = (yield* hiddenOf(network, w, h, { layers: [all, all] })).h;
    return { h, assign, handover };
  }

  /** Parts that feed a token to each row of a place: they take `fed` and `alive`, float32 [b], and keep rows as they are that are not alive. */
  private stepParts(b: number, place: string): string[] {
    const { program, stretches, weights, d } = this;
    const { network } = weights;
    const { mergeStep } = this.options;
    const logits = variables.logitsOf(place);
    return stretches.map((stretch, i) => {
      const name = `advance/${place}.${i}`;
      const { device, embeds, heads, norms } = stretch;
      const inputs: Specs = { alive: float32(b), ...(embeds ? { fed: float32(b) } : { h: float32(b, 1, d) }) };
      program.part(name, device, inputs, function* (this: DividedFunctions, given: Tensors, vars: Tensors): Pieces<TraceResult> {
        const { alive } = given;
        const w = this.of(device, vars);
        const ids = (): tf.Tensor2D => tf.reshape(tf.cast(given['fed']!, 'int32'), [b, 1]);
        const h = embeds ? network.embed(w, ids()) : (given['h'] as tf.Tensor3D);
        const mask = tf.reshape(alive!, [b, 1]) as tf.Tensor2D;
        // norm and head of one position are one kernel where they can be
        const both = norms && heads;
        const out = yield* this.layers(stretch, b, place, vars, h, { mask, mergeStep }, both);
        if (!heads) return { outputs: { h: out.h }, assign: out.assign };
        const flat = tf.reshape(out.h, [b, d]) as tf.Tensor2D;
        const next = both ? network.normedHead(w, flat, out.handover) : network.head(w, flat);
        const kept = tf.where(tf.greater(mask, 0), next, vars[logits]!);
        return { assign: { ...out.assign, [logits]: kept } };
      }.bind(this)); // prettier-ignore
      return name;
    });
  }

  private prefillParts(b: number, t: number): string[] {
    const { program, stretches, weights, options, d } = this;
    const { network } = weights;
    const bf16 = [...this.storages.values()].some(({ storage }) => storage.variables['']?.dtype === 'bfloat16');
    const bf16Scan = options.bf16Scan && bf16;
    const how = { tensorflowProducts: options.kernels ?? true, compileOutlined: options.layered };
    const logits = variables.logits(b);
    return stretches.map((stretch, i) => {
      const name = `${functions.prefill(b, t)}.${i}`;
      const { device, embeds, heads } = stretch;
      const inputs: Specs = {
        ...(embeds ? { ids: int32(b, t) } : { h: float32(b, t, d) }),
        ...(stretch.runs.length > 0 && { mask: float32(b, t) }),
        ...(heads && { ends: float32(b, t) }),
      };
      program.part(name, device, inputs, function* (this: DividedFunctions, given: Tensors, vars: Tensors): Pieces<TraceResult> {
        const w = this.of(device, vars);
        const embedded = embeds ? network.embed(w, given['ids'] as tf.Tensor2D) : (given['h'] as tf.Tensor3D);
        const run = { mask: given['mask'] as tf.Tensor2D, chunkSize: options.chunkSize, bf16Scan };
        const { h, assign } = yield* this.layers(stretch, b, places.slot(b), vars, embedded, run, false);
        if (!heads) return { outputs: { h }, assign };
        const { fed, next } = logitsAtEnds(network, w, h, given['ends']!, vars[logits]!);
        return { outputs: { fed, hidden: h }, assign: { ...assign, [logits]: next } };
      }.bind(this), how); // prettier-ignore
      return name;
    });
  }

  /** Work with the states of every device: a part for each that has some. @returns their names */
  private onStates(
    name: string,
    inputs: Specs,
    ...[b, place, of]: [number, string, (variable: ReturnType<typeof placedStates>[number], given: Tensors, vars: Tensors) => [string, tf.Tensor]] // prettier-ignore
  ): string[] {
    const all = this.states(b, place);
    return [...new Set(all.map(({ device }) => device))].map((device) => {
      const part = `${name}.${device}`;
      this.program.part(part, device, inputs, (given, vars) => ({
        assign: Object.fromEntries(all.filter((one) => one.device === device).map((one) => of(one, given, vars))),
      }));
      return part;
    });
  }

  private defineBatch(b: number): void {
    const { program, options, v } = this;
    const { head, embedding } = this.division;
    const place = places.slot(b);
    for (const t of options.segments)
      program.define(functions.prefill(b, t), {
        inputs: { ids: int32(b, t), mask: float32(b, t), ends: float32(b, t) },
        parts: this.prefillParts(b, t),
        outputs: ['fed', 'hidden'],
      });
    const steps = this.stepParts(b, place);
    const given = functions.step(b);
    program.part(given, embedding, { tokens: int32(b) }, ({ tokens }) => ({
      outputs: { fed: tf.cast(tokens!, 'float32'), alive: tf.ones([b]) },
    }));
    program.define(functions.step(b), { inputs: { tokens: int32(b) }, parts: [given, ...steps] });
    const logits = functions.logits(b);
    program.part(logits, head, {}, (_, vars) => ({ outputs: { logits: vars[variables.logits(b)]! } }));
    program.define(logits, { inputs: {}, parts: [logits], outputs: ['logits'] });
    const rows = { rows: int32(b) };
    const select = this.onStates(functions.select(b), rows, b, place, (variable, { rows: at }, vars) => [
      variable.name,
      rowsOf(variable, vars, at!),
    ]);
    program.define(functions.select(b), { inputs: rows, parts: select });
    if (options.zeroes) {
      const zero = this.onStates(functions.zero(b), {}, b, place, (variable) => [variable.name, zerosOf(variable)]);
      program.define(functions.zero(b), { inputs: {}, parts: zero });
    }
    const pad = { pad: int32() };
    program.part(functions.greedy(b), head, pad, (given, vars) => {
      const { token, fed, alive, still } = chosen(b, pickBest, given['pad']!, vars);
      return { outputs: { token, fed: tf.cast(fed, 'float32'), alive }, assign: { [variables.left(b)]: still } };
    });
    const drawn = { ...pad, ...sampleInputs(b) };
    program.part(functions.sample(b), head, drawn, (given, vars) => {
      const { token, fed, alive, still } = chosen(b, pickByChance(b, given), given['pad']!, vars);
      const history = vars[variables.history(b)]!;
      const seen = tf.maximum(history, tf.oneHot(token, v, 1, 0, 'float32'));
      return {
        outputs: { token, fed: tf.cast(fed, 'float32'), alive },
        assign: { [variables.left(b)]: still, [variables.history(b)]: seen },
      };
    });
    const outputs = ['token'];
    const repeat = { times: options.block, order: 'whole' } as const;
    for (const [name, loop, inputs, each] of [
      [functions.greedy(b), functions.greedyLoop(b), pad, []],
      [functions.sample(b), functions.sampleLoop(b), drawn, ['uniform']],
    ] as const) {
      const parts = [name, ...steps];
      program.define(name, { inputs, parts, outputs });
      if (options.block > 1) program.define(loop, { inputs, parts, outputs, repeat: { ...repeat, each } });
    }
  }

  /** The functions of a scheduler's rows (row_functions.ts). */
  private defineRows(b: number, block: number): void {
    const { program, v } = this;
    const { head } = this.division;
    const place = places.rows(b);
    const slot = places.slot(1);
    const single = new Map(this.states(1, slot).map(({ name }, i) => [this.states(b, place)[i]!.name, name]));
    const row = { row: int32() };
    const ends = { from: int32(), to: int32() };
    const into = this.onStates(functions.copy(slot, place), ends, b, place, ({ name }, given, vars) => [
      name,
      setRow(vars[name]!, given['to']!, vars[single.get(name)!]!),
    ]);
    program.define(functions.copy(slot, place), { inputs: ends, parts: into });
    const out = this.onStates(functions.copy(place, slot), ends, b, place, (one, given, vars) => [
      single.get(one.name)!,
      rowOf(one, vars, given['from']!),
    ]);
    program.define(functions.copy(place, slot), { inputs: ends, parts: out });
    for (const [name, variable] of [
      [functions.rowBias(b), variables.rowsBias(b)],
      [functions.rowHistory(b), variables.rowsHistory(b)],
    ] as const) {
      const inputs = { ...row, values: float32(v) };
      program.part(name, head, inputs, ({ row, values }, vars) => ({
        assign: { [variable]: setRow(vars[variable]!, row!, values!) },
      }));
      program.define(name, { inputs, parts: [name] });
    }
    const steps = this.stepParts(b, place);
    const inputs = rowInputs(b);
    const mask = { mask: int32(b, maskWords(v)) };
    const choice = (given: Tensors, vars: Tensors, masked: boolean): TraceResult => {
      const change = masked ? (scores: tf.Tensor2D): tf.Tensor2D => allowed(scores, given['mask']!) : undefined;
      const { alive, token, fed, still, had, logits } = chooseRows(b, v, given, vars, change);
      const stream = { fed: tf.cast(fed, 'float32'), alive: tf.cast(alive, 'float32') };
      // the next step's `left` is no input of those that follow
      return {
        outputs: { token, still, ...stream, ...(masked && { logits }) },
        assign: { [variables.rowsHistory(b)]: had },
      };
    };
    const [plain, masked] = [functions.rows(b), functions.rowsMasked(b)];
    program.part(plain, head, inputs, (given, vars) => choice(given, vars, false));
    program.part(masked, head, { ...inputs, ...mask }, (given, vars) => choice(given, vars, true));
    program.define(plain, { inputs, parts: [plain, ...steps], outputs: ['token'] });
    program.define(masked, {
      inputs: { ...inputs, ...mask },
      parts: [masked, ...steps],
      outputs: ['token', 'logits'],
    });
    if (block > 1)
      program.define(functions.rowsLoop(b), {
        inputs,
        parts: [plain, ...steps],
        outputs: ['token'],
        carry: { left: 'still' },
        repeat: { times: block, each: ['uniform'], order: 'whole' },
      });
  }

  /** How a row comes from among `from` rows to among `to`. */
  private defineMove(from: number, to: number): void {
    const { head } = this.division;
    const scalars = { from: int32(), to: int32() };
    const name = functions.move(from, to);
    const source = this.states(from, places.rows(from));
    const target = this.states(to, places.rows(to));
    const before = new Map(target.map((one, i) => [one.name, source[i]!]));
    const moved = this.onStates(name, scalars, to, places.rows(to), ({ name: own }, given, vars) => [
      own,
      setRow(vars[own]!, given['to']!, rowOf(before.get(own)!, vars, given['from']!)),
    ]);
    this.program.part(`${name}.of`, head, scalars, (given, vars) => ({
      assign: Object.fromEntries(
        ofRows(to).map((own, i) => {
          const row = rowOf({ name: ofRows(from)[i]!, dtype: 'float32' }, vars, given['from']!);
          return [own, setRow(vars[own]!, given['to']!, row)] as const;
        }),
      ),
    }));
    this.program.define(name, { inputs: scalars, parts: [...moved, `${name}.of`] });
  }
}

/** What is kept of each row besides its state. */
const ofRows = (b: number): string[] => [variables.rowsBias(b), variables.rowsHistory(b)];

const float32Variable = (...shape: number[]): { shape: number[]; dtype: 'float32' } => ({ shape, dtype: 'float32' });
