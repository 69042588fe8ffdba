/**
 * The training step as one compiled program: parameters, moments and, where several batches make an update, gradient
 * sums stay on the device; only ids go in and the loss comes out.
 */
import { checkBatchMemory } from './batch_memory.js';
import type * as tf from '@tensorflow/tfjs';
import { DisposedError } from '../base/errors.js';
import { bytesOfTensor } from '../engine/file_tensors.js';
import { Turns } from '../base/turns.js';
import type { Program } from '../jit/index.js';
import type { WeightBytes } from '../layers/index.js';
import { type AdamWSettings, adamwSettings, corrections } from './adamw.js';
import type { BatchShape, PreparedBatch } from './batch.js';
import {
  assignAll,
  countItems,
  type Moments,
  type StepKind,
  type StepOptions,
  type StepResult,
  type TrainingStep,
} from './step.js';
import { functions, type Kept, KEPT, shapeKey, stepProgram, variables } from './step_program.js';
import type { Trainable } from './trainable.js';

const shapeOf = (b: PreparedBatch): BatchShape => ({ batch: b.batch, length: b.length, segments: b.segments !== null });

/** See TrainingStep. Needs the tensorflow backend. The program is made at the first batch, and anew when a batch of another shape comes. */
export class CompiledStep implements TrainingStep {
  readonly engine = 'compiled';
  private count = 0;
  private readonly settings: AdamWSettings;
  private readonly variables: ReadonlyMap<string, tf.Variable>;
  private readonly names: readonly string[];
  private program: Program | null = null;
  private readonly shapes = new Map<string, { shape: BatchShape; kinds: Set<StepKind> }>();
  /** Functions of the program there is. */
  private defined: ReadonlySet<string> = new Set();
  private accumulates = false;
  private stale = false;
  /** For the program to begin with, where it is not the model's own values and no moments. */
  private kept: Partial<Record<Kept, ArrayBufferView>>[] | null = null;
  private disposed = false;
  /** One program is made anew for a new shape: whole calls follow one another, however many are made at once. */
  private readonly turns = new Turns();

  constructor(
    private readonly target: Trainable,
    private readonly options: StepOptions = {},
  ) {
    this.settings = adamwSettings(options);
    this.variables = target.trainable();
    this.names = [...this.variables.keys()];
  }

  get steps(): number {
    return this.count;
  }

  expect(kind: StepKind, shapes: readonly BatchShape[]): void {
    for (const shape of shapes) {
      const entry = this.shapes.get(shapeKey(shape)) ?? { shape, kinds: new Set() };
      entry.kinds.add(kind);
      this.shapes.set(shapeKey(shape), entry);
    }
    this.accumulates ||= kind === 'accumulate' && shapes.length > 0;
  }

  /** The program, with functions for these batches; made anew, values kept, when it lacks one. */
  private async ready(batches: readonly PreparedBatch[], kind: StepKind): Promise<Program> {
    if (this.disposed) throw new DisposedError('This training step was disposed');
    const shapes = batches.map(shapeOf);
    if (this.program && shapes.every((shape) => this.defined.has(functions.of(kind, shape)))) return this.program;
    this.expect(kind, shapes);
    const old = this.program;
    if (old) {
      const kept: Partial<Record<Kept, ArrayBufferView>>[] = [];
      for (const i of this.names.keys()) {
        const all = await old.readAllBytes(KEPT.map((kind) => variables.kept(kind, i)));
        kept.push(Object.fromEntries(KEPT.map((kind, k) => [kind, all[k]!])));
      }
      this.kept = kept;
    }
    this.program = null;
    old?.dispose();
    const { target, options, settings, accumulates } = this;
    const { program, defined } = stepProgram({
      target,
      options,
      settings,
      accumulates,
      trained: this.variables,
      shapes: this.shapes.values(),
      initial: (i, kind) => this.initial(i, kind),
    });
    await program.compile();
    if (this.disposed) {
      program.dispose();
      throw new DisposedError('This training step was disposed');
    }
    this.defined = defined;
    this.kept = null;
    this.program = program;
    return program;
  }

  /** Where the program's variable takes its first value from when its turn comes; null for zeros. */
  private initial(i: number, kind: Kept): WeightBytes | null {
    const kept = (): ArrayBufferView | undefined => this.kept?.[i]?.[kind];
    if (kept()) return () => kept()!;
    return kind === 'value' ? () => bytesOfTensor(this.variables.get(this.names[i]!)!, 'F32') : null;
  }

  step(batches: readonly PreparedBatch[], learningRate: number, seed: number): Promise<StepResult> {
    return this.turns.take(() => this.update(batches, learningRate, seed));
  }

  private async update(batches: readonly PreparedBatch[], learningRate: number, seed: number): Promise<StepResult> {
    for (const batch of batches) checkBatchMemory(this.target.network, batch, true);
    const items = countItems(batches);
    const program = await this.ready(batches, batches.length > 1 ? 'accumulate' : 'step');
    const update = { learning_rate: learningRate, items, ...corrections(this.settings, this.count + 1) };
    const inputs = (b: PreparedBatch, i: number): Record<string, Float32Array | Int32Array> => ({
      ...batchInputs(b),
      seed: Int32Array.of(seed, i),
    });
    let sum = 0;
    let gradNorm: number;
    if (batches.length === 1) {
      const out = await program.call(functions.of('step', shapeOf(batches[0]!)), {
        ...inputs(batches[0]!, 0),
        ...update,
      });
      sum = out['loss']![0]!;
      gradNorm = out['norm']![0]!;
    } else {
      for (const [i, b] of batches.entries()) {
        const { loss } = await program.call(functions.of('accumulate', shapeOf(b)), inputs(b, i));
        sum += loss![0]!;
      }
      gradNorm = (await program.call(functions.update, update))['norm']![0]!;
    }
    const loss = sum / items;
    if (Number.isFinite(loss) && Number.isFinite(gradNorm)) {
      this.count++;
      this.stale = true;
    }
    return { loss, grad_norm: gradNorm, items };
  }

  async evaluate(batch: PreparedBatch): Promise<number> {
    return this.turns.take(async () => {
      checkBatchMemory(this.target.network, batch, false);
      const program = await this.ready([batch], 'evaluate');
      return (await program.call(functions.of('evaluate', shapeOf(batch)), batchInputs(batch)))['loss']![0]!;
    });
  }

  async sync(): Promise<void> {
    await this.turns.take(async () => {
      const { program, stale } = this;
      if (!stale || !program) return;
      const values = (await program.readAll(this.values())) as Float32Array[];
      await this.target.model.weights.turns.take(() => assignAll(this.variables.values(), values));
      this.stale = false;
    });
  }

  syncNow(): void {
    const { program } = this;
    if (!this.stale || !program) return;
    assignAll(
      this.variables.values(),
      this.values().map((name) => program.read(name) as Float32Array),
    );
    this.stale = false;
  }

  async refresh(): Promise<void> {
    await this.turns.take(async () => {
      const values = [...this.variables.values()].map(
        (variable, i) => [variables.kept('value', i), () => bytesOfTensor(variable, 'F32')] as const,
      );
      await this.program?.assignAll(Object.fromEntries(values));
      this.stale = false;
    });
  }

  /** Names of the program's variables that hold the trained ones. */
  private values(): string[] {
    return this.names.map((_, i) => variables.kept('value', i));
  }

  async moments(name: string): Promise<Moments> {
    const i = this.names.indexOf(name);
    return this.turns.take(async () => {
      if (this.program) {
        const both = await this.program.readAll([variables.kept('first', i), variables.kept('second', i)]);
        return { first: both[0] as Float32Array, second: both[1] as Float32Array };
      }
      const size = this.variables.get(name)!.size;
      const read = (kind: Kept): Float32Array =>
        (this.kept?.[i]?.[kind] as Float32Array | undefined) ?? new Float32Array(size);
      return { first: read('first'), second: read('second') };
    });
  }

  async restore(steps: number, moments: (name: string) => Moments): Promise<void> {
    const values = this.names.map((name) => moments(name));
    await this.turns.take(async () => {
      this.count = steps;
      if (!this.program) this.kept = values;
      for (const [i, { first, second }] of values.entries())
        await this.program?.assignAll({
          [variables.kept('first', i)]: () => first,
          [variables.kept('second', i)]: () => second,
        });
    });
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.program?.dispose();
    this.program = null;
  }
}

function batchInputs(b: PreparedBatch): Record<string, Float32Array | Int32Array> {
  return { ids: b.ids, labels: b.labels, weights: b.weights, ...(b.segments && { segments: b.segments }) };
}
