/** The training step over several devices: of this machine, or of workers. */
import type * as tf from '@tensorflow/tfjs';
import { ArgumentError, DisposedError, TrainingError } from '../../base/errors.js';
import { MessageWriter } from '../../base/proto.js';
import { Turns } from '../../base/turns.js';
import type { Placement, ReplicaGraph } from '../../jit/program/replicas.js';
import type { WeightBytes } from '../../layers/index.js';
import { onGpu } from '../../runtime/index.js';
import { Cluster } from '../../runtime/cluster/cluster.js';
import { deviceReport } from '../../runtime/report.js';
import { type AdamWSettings, adamwSettings, corrections } from '../adamw.js';
import type { BatchShape, PreparedBatch } from '../batch.js';
import { checkBatchMemory } from '../batch_memory.js';
import {
  assignAll,
  countItems,
  type Moments,
  type StepKind,
  type StepOptions,
  type StepResult,
  type TrainingStep,
} from '../step.js';
import { functions, type Kept, KEPT, shapeKey, UPDATE, variables } from '../step_program.js';
import type { Trainable } from '../trainable.js';
import { type Bucket, ownBytes, replicaGraph } from './graph.js';

/** Where replicas run. */
export interface ReplicaOptions {
  /** Addresses of workers, HOST:PORT. */
  workers?: readonly string[] | null;
  /** How many replicas; 'auto' for a replica on each device there is. */
  data_parallel?: 'auto' | number | null;
  /** Rows of a batch, at most: there are no more replicas. Default: those of the first. */
  rows?: number;
  on_notice?: (message: string) => void;
  /** Milliseconds that workers may take until they listen. */
  wait?: number;
}

interface Devices {
  placements: readonly Placement[];
  config: Uint8Array;
  target: string;
}

/** Whether these options ask for more than the one device of this process. */
export function replicated({ workers, data_parallel }: Pick<ReplicaOptions, 'workers' | 'data_parallel'>): boolean {
  if (workers) return true;
  return data_parallel === 'auto' ? onGpu() && deviceReport().gpu.names.length > 1 : (data_parallel ?? 1) > 1;
}

/** Rows of each replica's part: parts are equal, and what is missing at the end does not count. */
function partOf(batch: PreparedBatch, k: number, replicas: number): PreparedBatch {
  const rows = Math.ceil(batch.batch / replicas);
  const { length: t } = batch;
  const cut = <T extends Int32Array | Float32Array>(all: T, made: T): T => {
    made.set(all.subarray(k * rows * t, (k + 1) * rows * t));
    return made;
  };
  return {
    ...batch,
    batch: rows,
    ids: cut(batch.ids, new Int32Array(rows * t)),
    labels: cut(batch.labels, new Int32Array(rows * t)),
    weights: cut(batch.weights, new Float32Array(rows * t)),
    segments: batch.segments && cut(batch.segments, new Int32Array(rows * t)),
  };
}

/** See TrainingStep, and graph.ts. Needs the tensorflow backend. */
export class ReplicatedStep implements TrainingStep {
  readonly engine = 'compiled';
  private count = 0;
  private readonly settings: AdamWSettings;
  private readonly trained: ReadonlyMap<string, tf.Variable>;
  private readonly names: readonly string[];
  private cluster: Cluster | null = null;
  private devices: Devices | null = null;
  private graph: ReplicaGraph | null = null;
  private buckets: readonly Bucket[] = [];
  private defined: ReadonlySet<string> = new Set();
  private readonly shapes = new Map<string, { shape: BatchShape; kinds: Set<StepKind> }>();
  private accumulates = false;
  private stale = false;
  private kept: Partial<Record<Kept, ArrayBufferView>>[] | null = null;
  private lost: TrainingError | null = null;
  private disposed = false;
  private readonly turns = new Turns();

  constructor(
    private readonly target: Trainable,
    private readonly options: StepOptions,
    private readonly replicas: ReplicaOptions,
  ) {
    this.settings = adamwSettings(options);
    this.trained = target.trainable();
    this.names = [...this.trained.keys()];
  }

  get steps(): number {
    return this.count;
  }

  /** How many replicas there are; 0 before the first batch. */
  get size(): number {
    return this.devices?.placements.length ?? 0;
  }

  expect(kind: StepKind, shapes: readonly BatchShape[]): void {
    for (const shape of shapes) {
      const entry = this.shapes.get(shapeKey(shape)) ?? { shape, kinds: new Set() };
      entry.kinds.add(kind);
      this.shapes.set(shapeKey(shape), entry);
    }
    this.accumulates ||= kind === 'accumulate' && shapes.length > 0;
  }

  /** How many of the devices there are replicas run on. @throws ArgumentError for more replicas than devices or rows */
  private counted(devices: readonly string[], batch: number): number {
    const { data_parallel, rows = batch, workers } = this.replicas;
    const wanted = data_parallel ?? (workers ? devices.length : 1);
    if (wanted === 'auto') return Math.min(devices.length, rows);
    if (wanted > devices.length)
      throw new ArgumentError(`data_parallel: ${wanted} replicas were asked for, and there are ${devices.length} devices: ${devices.join(', ')}`, { got: wanted, devices }); // prettier-ignore
    if (wanted > rows)
      throw new ArgumentError(
        `${this.replicas.rows === undefined ? 'batchSize' : 'per_device_train_batch_size'}: ${wanted} replicas share the ${rows} row${rows === 1 ? '' : 's'} of a batch, and each needs one: take larger batches or fewer replicas (${this.replicas.rows === undefined ? 'dataParallel' : 'data_parallel'}: 'auto')`,
        { replicas: wanted, rows },
      );
    return wanted;
  }

  /** @param rows of the first batch */
  private async open(rows: number): Promise<Devices> {
    // field 10, graph_options: rewrite_options.disable_meta_optimizer, as for other programs
    const noRewrites = new MessageWriter().bytes(10, new MessageWriter().bytes(10, new MessageWriter().int(19, 1)));
    const bytes = (...messages: MessageWriter[]): Uint8Array => Buffer.concat(messages.map((each) => each.finish()));
    const { workers, data_parallel, wait, on_notice } = this.replicas;
    if (workers) {
      const cluster = await Cluster.open(workers, { wait, on_notice });
      const placements = cluster.devices.slice(
        0,
        this.counted(
          cluster.devices.map(({ name }) => name),
          rows,
        ),
      );
      this.cluster = cluster;
      cluster.watch((error) => this.lose(error));
      return { placements, config: bytes(cluster.config, noRewrites), target: cluster.target };
    }
    const gpu = onGpu();
    const found = gpu ? deviceReport().gpu.names.map((name, k) => `${name} (GPU ${k})`) : [];
    // a CPU is as many devices as are asked for
    const all = gpu ? found : Array.from({ length: Number(data_parallel) }, (_, k) => `CPU ${k}`);
    const placements = Array.from({ length: this.counted(all, rows) }, (_, k) => ({
      device: `/job:localhost/replica:0/task:0/device:${gpu ? 'GPU' : 'CPU'}:${k}`,
      host: '/job:localhost/replica:0/task:0/device:CPU:0',
    }));
    const cpus = new MessageWriter().bytes(1, new MessageWriter().bytes(1, 'CPU').int(2, placements.length));
    return { placements, config: gpu ? bytes() : bytes(cpus, noRewrites), target: '' };
  }

  /** The graph, with functions for these batches; made anew, values kept, when it lacks one. */
  private async ready(batches: readonly PreparedBatch[], kind: StepKind): Promise<ReplicaGraph> {
    this.usable();
    this.devices ??= await this.open(Math.max(...batches.map(({ batch }) => batch)));
    const shapes = batches.map((batch) => this.shapeOf(batch));
    const known = (shape: BatchShape): boolean => this.defined.has(functions.of(kind, shape));
    if (this.graph && shapes.every(known)) return this.graph;
    // shapes that were told before the number of replicas was known are those of whole batches
    this.expect(kind, batches.map(wholeShape));
    const { graph: old } = this;
    if (old) {
      const owners = this.owners();
      const kept: Partial<Record<Kept, ArrayBufferView>>[] = [];
      for (const i of this.names.keys()) {
        const parts: Partial<Record<Kept, ArrayBufferView>> = {};
        for (const part of KEPT)
          parts[part] = await this.guarded(old.read(part === 'value' ? 0 : owners.get(i)!, variables.kept(part, i)));
        kept.push(parts);
      }
      this.kept = kept;
    }
    this.graph = null;
    old?.dispose(true);
    const { target, options, settings, accumulates } = this;
    const parts = [...this.shapes.values()].map(({ shape, kinds }) => ({ shape: this.part(shape), kinds }));
    const merged = new Map<string, { shape: BatchShape; kinds: Set<StepKind> }>();
    for (const { shape, kinds } of parts) {
      const entry = merged.get(shapeKey(shape)) ?? { shape, kinds: new Set() };
      for (const each of kinds) entry.kinds.add(each);
      merged.set(shapeKey(shape), entry);
    }
    const { graph, defined, buckets } = await replicaGraph(
      {
        target,
        options,
        settings,
        accumulates,
        trained: this.trained,
        shapes: merged.values(),
        initial: (i, part) => this.initial(i, part),
      },
      this.devices.placements,
      { ...this.devices, alive: () => this.usable() },
    );
    try {
      await this.guarded(graph.load());
      this.usable();
    } catch (error) {
      graph.dispose(this.lost === null);
      throw error;
    }
    [this.graph, this.defined, this.buckets, this.kept] = [graph, defined, buckets, null];
    return graph;
  }

  private part(shape: BatchShape): BatchShape {
    return { ...shape, batch: Math.ceil(shape.batch / this.size) };
  }

  private shapeOf(batch: PreparedBatch): BatchShape {
    return this.part(wholeShape(batch));
  }

  private owners(): Map<number, number> {
    return new Map(this.buckets.flatMap(({ owner, members }) => members.map((i) => [i, owner] as const)));
  }

  private initial(i: number, kind: Kept): WeightBytes | null {
    const kept = this.kept?.[i]?.[kind];
    if (kept) return () => new Uint8Array(kept.buffer, kept.byteOffset, kept.byteLength);
    return kind === 'value' ? ownBytes(this.trained.get(this.names[i]!)!) : null;
  }

  step(batches: readonly PreparedBatch[], learningRate: number, seed: number): Promise<StepResult> {
    return this.turns.take(() => this.update(batches, learningRate, seed));
  }

  private async update(batches: readonly PreparedBatch[], learningRate: number, seed: number): Promise<StepResult> {
    if (!this.replicas.workers) for (const batch of batches) checkBatchMemory(this.target.network, batch, true);
    const items = countItems(batches);
    const many = batches.length > 1;
    const graph = await this.ready(batches, many ? 'accumulate' : 'step');
    const numbers = { learning_rate: learningRate, items, ...corrections(this.settings, this.count + 1) };
    const rates = this.each((k) =>
      Object.keys(UPDATE).map((name) => [`${name}${k}`, Float32Array.of(numbers[name as keyof typeof numbers])]),
    );
    let sum = 0;
    let gradNorm = NaN;
    for (const [i, batch] of batches.entries()) {
      const name = functions.of(many ? 'accumulate' : 'step', this.shapeOf(batch));
      const seeds = this.each((k) => [[`seed${k}`, Int32Array.of((seed + k * 0x9e3779b1) | 0, i)]]);
      const out = await this.guarded(graph.run(name, { ...this.fed(batch), ...seeds, ...(many ? {} : rates) }));
      sum += out['loss']!;
      if (!many) gradNorm = out['norm']!;
    }
    if (many) gradNorm = (await this.guarded(graph.run(functions.update, rates)))['norm']!;
    const loss = sum / items;
    if (Number.isFinite(loss) && Number.isFinite(gradNorm)) {
      this.count++;
      this.stale = true;
    }
    return { loss, grad_norm: gradNorm, items };
  }

  private each(of: (k: number) => (readonly [string, ArrayBufferView] | unknown[])[]): Record<string, ArrayBufferView> {
    const entries = Array.from({ length: this.size }, (_, k) => of(k)).flat();
    return Object.fromEntries(entries as [string, ArrayBufferView][]);
  }

  private fed(batch: PreparedBatch): Record<string, ArrayBufferView> {
    return this.each((k) => {
      const { ids, labels, weights, segments } = partOf(batch, k, this.size);
      const own: [string, ArrayBufferView][] = [[`ids${k}`, ids], [`labels${k}`, labels], [`weights${k}`, weights]]; // prettier-ignore
      return segments ? [...own, [`segments${k}`, segments]] : own;
    });
  }

  async evaluate(batch: PreparedBatch): Promise<number> {
    return this.turns.take(async () => {
      if (!this.replicas.workers) checkBatchMemory(this.target.network, batch, false);
      const graph = await this.ready([batch], 'evaluate');
      const name = functions.of('evaluate', this.shapeOf(batch));
      return (await this.guarded(graph.run(name, this.fed(batch))))['loss']!;
    });
  }

  async sync(): Promise<void> {
    await this.turns.take(async () => {
      const { graph, stale } = this;
      if (!stale || !graph) return;
      this.usable();
      const values: Float32Array[] = [];
      for (const i of this.names.keys())
        values.push(floats(await this.guarded(graph.read(0, variables.kept('value', i)))));
      await this.target.model.weights.turns.take(() => assignAll(this.trained.values(), values));
      this.stale = false;
    });
  }

  syncNow(): void {
    const { graph } = this;
    if (!this.stale || !graph) return;
    this.usable();
    assignAll(
      this.trained.values(),
      this.names.map((_, i) => floats(graph.readSync(0, variables.kept('value', i)))),
    );
    this.stale = false;
  }

  async refresh(): Promise<void> {
    await this.turns.take(async () => {
      for (const [i, name] of this.names.entries()) {
        const values = await this.trained.get(name)!.data<'float32'>();
        for (let k = 0; this.graph && k < this.size; k++)
          await this.guarded(this.graph.write(k, variables.kept('value', i), values));
      }
      this.stale = false;
    });
  }

  async moments(name: string): Promise<Moments> {
    const i = this.names.indexOf(name);
    const { size } = this.trained.get(name)!;
    return this.turns.take(async () => {
      const owner = this.owners().get(i);
      const read = async (kind: Kept): Promise<Float32Array> =>
        this.graph
          ? floats(await this.guarded(this.graph.read(owner!, variables.kept(kind, i))))
          : ((this.kept?.[i]?.[kind] as Float32Array | undefined) ?? new Float32Array(size));
      return { first: await read('first'), second: await read('second') };
    });
  }

  async restore(steps: number, moments: (name: string) => Moments): Promise<void> {
    const values = this.names.map((name) => moments(name));
    await this.turns.take(async () => {
      this.count = steps;
      if (!this.graph) {
        this.kept = values;
        return;
      }
      const owners = this.owners();
      for (const [i, { first, second }] of values.entries()) {
        await this.guarded(this.graph.write(owners.get(i)!, variables.kept('first', i), first));
        await this.guarded(this.graph.write(owners.get(i)!, variables.kept('second', i), second));
      }
    });
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.cluster?.stop();
    this.graph?.dispose(this.lost === null);
    this.graph = null;
  }

  private usable(): void {
    if (this.disposed) throw new DisposedError('This training step was disposed');
    if (this.lost) throw this.lost;
  }

  private onLost: ((error: TrainingError) => void) | null = null;

  private lose(error: Error): TrainingError {
    this.lost ??= new TrainingError(error.message, {}, { cause: error });
    this.cluster?.stop();
    this.onLost?.(this.lost);
    return this.lost;
  }

  /** Work on the devices, which ends when a worker is lost: TensorFlow may wait for it for ever. */
  private async guarded<T>(work: Promise<T>): Promise<T> {
    const { cluster } = this;
    if (!cluster) return work;
    try {
      return await new Promise<T>((resolve, reject) => {
        this.onLost = reject;
        work.then(resolve, reject);
      });
    } catch (error) {
      if (this.lost) throw this.lost;
      const found = await cluster.findLost();
      throw found ? this.lose(found) : error;
    } finally {
      this.onLost = null;
    }
  }
}

function wholeShape({ batch, length, segments }: PreparedBatch): BatchShape {
  return { batch, length, segments: segments !== null };
}

function floats(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}
