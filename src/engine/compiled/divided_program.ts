/**
 * The model as one program over several devices: embedding, runs of layers, norm and head where a division says, each with its weights and states. The
 * functions are those of a decoding program (decoding_program.ts). What reads prompts is a sequence of parts, one a device, between which the stream
 * passes; a step of tokens is begun by all devices at once (divided_steps.ts).
 */
import * as tf from '@tensorflow/tfjs';
import type { Pieces } from '../../base/pieces.js';
import type { TensorSpec, TraceResult } from '../../jit/index.js';
import { setRow } from '../../jit/ops/set_row.js';
import { PlacedProgram } from '../../jit/program/placed.js';
import { onGpu } from '../../runtime/index.js';
import type { NetworkWeights } from '../network_weights.js';
import type { Division } from '../placement/division.js';
import { chosen, type DecodingProgramOptions, MEMORY_ADVICE, pickBest, pickByChance, sampleInputs } from './decoding_program.js'; // prettier-ignore
import { DividedModel, type Tensors } from './divided_model.js';
import { declareMessages, defineStep, type StepKind } from './divided_steps.js';
import { functions, places, variables } from './names.js';
import { logitsAtEnds } from './prefill_function.js';
import { rowOf, rowsOf, zerosOf } from './copy_functions.js';
import { chooseRows, rowInputs } from './row_functions.js';
import { allowed, maskWords } from './row_settings.js';

type Specs = Record<string, TensorSpec>;

const int32 = (...shape: number[]): TensorSpec => ({ shape, dtype: 'int32' });
const float32 = (...shape: number[]): TensorSpec => ({ shape, dtype: 'float32' });

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
    sums: options.sums,
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
  private readonly model: DividedModel;
  /** Parts that several functions have. */
  private readonly defined = new Set<string>();
  private readonly v: number;
  private readonly d: number;

  constructor(
    weights: NetworkWeights,
    private readonly options: DecodingProgramOptions,
    private readonly division: Division,
    private readonly program: PlacedProgram,
  ) {
    const { vocab_size, hidden_size } = weights.network.config;
    [this.v, this.d] = [vocab_size, hidden_size];
    this.model = new DividedModel(weights, options, division);
  }

  define(): void {
    const { program, options, v } = this;
    this.model.declareWeights(program);
    declareMessages(program);
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

  private declareStates(b: number, place: string): void {
    for (const { name, shape, dtype, device } of this.states(b, place)) this.program.variable(name, { shape, dtype }, device); // prettier-ignore
  }

  private states(b: number, place: string): ReturnType<DividedModel['states']> {
    return this.model.states(b, place);
  }

  /** Parts that read t tokens of each row, and keep what they gave by the name: the same for all segments of such pieces. */
  private prefillParts(b: number, t: number): string[] {
    const { program, model, options, d } = this;
    const { network, stretches } = model;
    const bf16Scan = options.bf16Scan && model.bfloat16;
    const how = { tensorflowProducts: options.kernels ?? true, compileOutlined: options.layered };
    const logits = variables.logits(b);
    return stretches.map((stretch, i) => {
      const name = `${functions.prefill(b, t)}.${i}`;
      if (this.defined.has(name)) return name;
      this.defined.add(name);
      const { device, embeds, heads } = stretch;
      const inputs: Specs = {
        ...(embeds ? { ids: int32(b, t) } : { h: float32(b, t, d) }),
        ...(stretch.runs.length > 0 && { mask: float32(b, t) }),
        ...(heads && { ends: float32(b, t) }),
      };
      program.part(name, device, inputs, function* (given: Tensors, vars: Tensors): Pieces<TraceResult> {
        const w = model.of(device, vars);
        const embedded = embeds ? network.embed(w, given['ids'] as tf.Tensor2D) : (given['h'] as tf.Tensor3D);
        const run = { mask: given['mask'] as tf.Tensor2D, chunkSize: options.chunkSize, bf16Scan };
        const { h, assign } = yield* model.layers(stretch, b, places.slot(b), vars, embedded, { run, outlined: true });
        if (!heads) return { outputs: { h }, assign };
        const { fed, next } = logitsAtEnds(network, w, h, given['ends']!, vars[logits]!);
        return { outputs: { fed, hidden: h }, assign: { ...assign, [logits]: next } };
      }, how); // prettier-ignore
      return name;
    });
  }

  /** Reads t tokens of each row: in pieces, where the next one is on the first device while the one before it is on the second. */
  private definePrefill(b: number, t: number): void {
    const { program, division, options } = this;
    const { piece } = options;
    const pieces = piece !== undefined && division.devices.length > 1 && t > piece && t % piece === 0 ? t / piece : 1;
    const each = t / pieces;
    program.define(functions.prefill(b, t), {
      inputs: { ids: int32(b, each), mask: float32(b, each), ends: float32(b, each) },
      parts: this.prefillParts(b, each),
      outputs: ['fed', 'hidden'],
      ...(pieces > 1 && { repeat: { times: pieces, order: 'parts', along: { ids: 1, mask: 1, ends: 1, hidden: 1 } } }),
    });
  }

  /** Work with the states of every device: a part for each that has some. @returns their names */
  private onStates(
    name: string,
    inputs: Specs,
    ...[b, place, of]: [number, string, (variable: ReturnType<DividedModel['states']>[number], given: Tensors, vars: Tensors) => [string, tf.Tensor]] // prettier-ignore
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
    const { program, model, options, v } = this;
    const { head } = this.division;
    const place = places.slot(b);
    for (const t of options.segments) this.definePrefill(b, t);
    const given = { inputs: { tokens: int32(b) }, choose: null };
    defineStep(program, model, options, { name: functions.step(b), b, place, kind: given });
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
    const greedy: StepKind = {
      inputs: pad,
      choose: (given, vars) => {
        const { token, fed, alive, still } = chosen(b, pickBest, given['pad']!, vars);
        return { outputs: { token }, fed, alive, assign: { [variables.left(b)]: still } };
      },
    };
    const drawn: StepKind = {
      inputs: { ...pad, ...sampleInputs(b) },
      choose: (given, vars) => {
        const { token, fed, alive, still } = chosen(b, pickByChance(b, given), given['pad']!, vars);
        const history = vars[variables.history(b)]!;
        const seen = tf.maximum(history, tf.oneHot(token, v, 1, 0, 'float32'));
        const assign = { [variables.left(b)]: still, [variables.history(b)]: seen };
        return { outputs: { token }, fed, alive, assign };
      },
    };
    for (const [name, loop, kind, each] of [
      [functions.greedy(b), functions.greedyLoop(b), greedy, []],
      [functions.sample(b), functions.sampleLoop(b), drawn, ['uniform']],
    ] as const) {
      defineStep(program, model, options, { name, b, place, kind });
      if (options.block > 1) program.defineLoop(loop, { body: name, steps: options.block, each });
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
    const inputs = rowInputs(b);
    const mask = { mask: int32(b, maskWords(v)) };
    const kind = (masked: boolean): StepKind => ({
      inputs: masked ? { ...inputs, ...mask } : inputs,
      choose: (given, vars) => {
        const change = masked ? (scores: tf.Tensor2D): tf.Tensor2D => allowed(scores, given['mask']!) : undefined;
        const { alive, token, fed, still, had, logits } = chooseRows(b, v, given, vars, change);
        return {
          outputs: { token, left: still, ...(masked && { logits }) },
          fed,
          alive: tf.cast(alive, 'float32'),
          assign: { [variables.rowsHistory(b)]: had },
        };
      },
      others: ({ left }) => ({ left: left! }),
    });
    const [plain, masked] = [functions.rows(b), functions.rowsMasked(b)];
    for (const [name, own] of [
      [plain, kind(false)],
      [masked, kind(true)],
    ] as const)
      defineStep(program, this.model, this.options, { name, b, place, kind: own });
    if (block > 1)
      program.defineLoop(functions.rowsLoop(b), {
        body: plain,
        steps: block,
        each: ['uniform'],
        feed: { left: 'left' },
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
