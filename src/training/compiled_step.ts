/**
 * The training step as one compiled program: parameters, moments and, where several batches make an update, gradient
 * sums stay on the device; only ids go in and the loss comes out.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, DisposedError } from '../base/errors.js';
import { Program, type TensorSpec } from '../jit/index.js';
import {
  bfloat16Storage,
  float32Storage,
  isStored,
  type Weight,
  type Weights,
  type WeightStorage,
} from '../layers/index.js';
import { encodeFloat32 } from '../base/stored_dtypes.js';
import { adamwUpdate, clipFactor, globalNorm } from './adamw.js';
import type { BatchShape, PreparedBatch } from './batch.js';
import { type BatchTensors, lossAndGradients, lossSum } from './objective.js';
import {
  type AdamWSettings,
  adamwSettings,
  countItems,
  type Moments,
  type StepKind,
  type StepOptions,
  type StepResult,
  type TrainingStep,
} from './step.js';
import type { Trainable } from './trainable.js';

type Tensors = Record<string, tf.Tensor>;

const keyOf = ({ batch, length, segments }: BatchShape): string => `${batch}x${length}${segments ? 's' : ''}`;
const shapeOf = (b: PreparedBatch): BatchShape => ({ batch: b.batch, length: b.length, segments: b.segments !== null });

const scalar: TensorSpec = { shape: [], dtype: 'float32' };
const UPDATE: Record<string, TensorSpec> = {
  learning_rate: scalar,
  correction1: scalar,
  correction2: scalar,
  items: scalar,
};
const SEED: Record<string, TensorSpec> = { seed: { shape: [2], dtype: 'int32' } };

function batchSpecs({ batch: b, length: t, segments }: BatchShape): Record<string, TensorSpec> {
  return {
    ids: { shape: [b, t], dtype: 'int32' },
    labels: { shape: [b * t], dtype: 'int32' },
    weights: { shape: [b * t], dtype: 'float32' },
    ...(segments && { segments: { shape: [b, t], dtype: 'int32' } }),
  };
}

const tensorsOf = (inputs: Tensors): BatchTensors => inputs as unknown as BatchTensors;

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
  private readonly defined = new Set<string>();
  private accumulates = false;
  private stale = false;
  /** Values for the program to begin with, by kind, where they are not the model's own. */
  private kept: Record<string, ArrayBufferView>[] | null = null;
  private disposed = false;

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
      const entry = this.shapes.get(keyOf(shape)) ?? { shape, kinds: new Set() };
      entry.kinds.add(kind);
      this.shapes.set(keyOf(shape), entry);
    }
    this.accumulates ||= kind === 'accumulate' && shapes.length > 0;
  }

  private frozenStorages(): Map<string, WeightStorage> {
    const storages = new Map<string, WeightStorage>();
    for (const [name, weight] of Object.entries(this.target.frozen())) {
      if (isStored(weight)) {
        const storage = weight.storage?.();
        if (!storage)
          throw new ArgumentError(
            `Training: '${name}' is stored in a form that has no compiled one; use engine: 'eager'`,
            { name },
          );
        storages.set(name, storage);
        continue;
      }
      const values = (): Float32Array => weight.dataSync<'float32'>();
      const narrow = this.options.bf16 === true && this.target.matrices.has(name);
      storages.set(
        name,
        narrow
          ? bfloat16Storage(weight.shape, () => encodeFloat32(values(), 'BF16'))
          : float32Storage(weight.shape, values),
      );
    }
    return storages;
  }

  /** @param initial first value of a tensor's parameter (p) or moment (m, v); null for zeros */
  private build(initial: (index: number, kind: string) => ArrayBufferView | null): Program {
    const program = new Program({
      name: 'training',
      onCompile: this.options.on_compile,
      memoryAdvice: 'Use a smaller batch, shorter rows or gradient checkpointing.',
    });
    this.defined.clear();
    const define: Program['define'] = (name, inputs, fn) => {
      this.defined.add(name);
      program.define(name, inputs, fn, { xla: this.options.xla ?? true });
    };
    const frozen = this.frozenStorages();
    this.names.forEach((name, i) => {
      const { shape } = this.variables.get(name)!;
      for (const kind of 'pmv') {
        const value = initial(i, kind);
        program.variable(`${kind}${i}`, { shape, dtype: 'float32', ...(value && { init: () => value }) });
      }
      if (this.accumulates) program.variable(`g${i}`, { shape, dtype: 'float32' });
    });
    [...frozen.values()].forEach((storage, i) => {
      for (const [suffix, spec] of Object.entries(storage.variables)) program.variable(`f${i}${suffix}`, spec);
    });
    // read at once, outside of the gradient's scope: a backward pass may use what a forward pass read
    const frozenWeights = (vars: Tensors): Weights =>
      Object.fromEntries(
        [...frozen].map(([name, storage], i): [string, Weight] => {
          const parts = Object.keys(storage.variables).map((suffix) => [suffix, vars[`f${i}${suffix}`]!] as const);
          return [name, storage.weight(Object.fromEntries(parts))];
        }),
      );
    const values = (vars: Tensors, kind: string): tf.Tensor[] => this.names.map((_, i) => vars[`${kind}${i}`]!);
    for (const { shape, kinds } of this.shapes.values()) {
      const key = keyOf(shape);
      const gradients = (inputs: Tensors, vars: Tensors): { loss: tf.Scalar; gradients: tf.Tensor[] } =>
        lossAndGradients(this.target, this.names, values(vars, 'p'), frozenWeights(vars), tensorsOf(inputs), {
          ...this.options,
          seed: inputs['seed'] as tf.Tensor1D,
        });
      if (kinds.has('step'))
        define(`step_${key}`, { ...batchSpecs(shape), ...UPDATE, ...SEED }, (inputs, vars) => {
          const { loss, gradients: sums } = gradients(inputs, vars);
          return this.update(inputs, vars, sums, loss);
        });
      if (kinds.has('accumulate')) {
        define(`accumulate_${key}`, { ...batchSpecs(shape), ...SEED }, (inputs, vars) => {
          const { loss, gradients: sums } = gradients(inputs, vars);
          return {
            outputs: { loss },
            assign: Object.fromEntries(sums.map((g, i) => [`g${i}`, tf.add(vars[`g${i}`]!, g)])),
          };
        });
      }
      if (kinds.has('evaluate'))
        define(`evaluate_${key}`, batchSpecs(shape), (inputs, vars) => {
          const record = Object.fromEntries(this.names.map((name, i) => [name, vars[`p${i}`]!]));
          return {
            outputs: {
              loss: lossSum(this.target, record, frozenWeights(vars), tensorsOf(inputs), {
                ...this.options,
                grads: false,
              }),
            },
          };
        });
    }
    if (this.accumulates) {
      define('update', UPDATE, (inputs, vars) => {
        const { outputs, assign } = this.update(inputs, vars, values(vars, 'g'), tf.scalar(0));
        const cleared = Object.fromEntries(this.names.map((_, i) => [`g${i}`, tf.zerosLike(vars[`g${i}`]!)]));
        return { outputs: { norm: outputs['norm']! }, assign: { ...assign, ...cleared } };
      });
    }
    return program;
  }

  /** AdamW over the summed gradients. When they are not finite everything stays as it was. */
  private update(
    inputs: Tensors,
    vars: Tensors,
    sums: readonly tf.Tensor[],
    loss: tf.Scalar,
  ): { outputs: Tensors; assign: Tensors } {
    const { settings } = this;
    const scale = tf.reciprocal(inputs['items']!);
    const norm = tf.mul(globalNorm(sums), scale) as tf.Scalar;
    const factor = settings.max_grad_norm === null ? scale : tf.mul(scale, clipFactor(norm, settings.max_grad_norm));
    const fine = tf.isFinite(tf.add(norm, loss));
    const assign: Tensors = {};
    this.names.forEach((name, i) => {
      const [value, first, second] = ['p', 'm', 'v'].map((kind) => vars[`${kind}${i}`]!) as [
        tf.Tensor,
        tf.Tensor,
        tf.Tensor,
      ];
      const next = adamwUpdate(
        value,
        tf.mul(sums[i]!, factor),
        first,
        second,
        {
          ...settings,
          learningRate: inputs['learning_rate'] as tf.Scalar,
          weightDecay: settings.decays(name, value.shape) ? settings.weight_decay : 0,
          correction1: inputs['correction1'] as tf.Scalar,
          correction2: inputs['correction2'] as tf.Scalar,
        },
        fine,
      );
      assign[`p${i}`] = next.value;
      assign[`m${i}`] = next.first;
      assign[`v${i}`] = next.second;
    });
    return { outputs: { loss, norm }, assign };
  }

  /** The program, with functions for these batches; made anew, values kept, when it lacks one. */
  private async ready(batches: readonly PreparedBatch[], kind: StepKind): Promise<Program> {
    if (this.disposed) throw new DisposedError('This training step was disposed');
    const shapes = batches.map(shapeOf);
    if (this.program && shapes.every((shape) => this.defined.has(`${kind}_${keyOf(shape)}`))) return this.program;
    this.expect(kind, shapes);
    const old = this.program;
    this.program = null;
    if (old)
      this.kept = this.names.map((_, i) =>
        Object.fromEntries([...'pmv'].map((kind) => [kind, old.readBytes(`${kind}${i}`)])),
      );
    old?.dispose();
    const program = this.build((i, kind) => {
      const value = this.kept?.[i]![kind];
      return value ?? (kind === 'p' ? this.variables.get(this.names[i]!)!.dataSync<'float32'>() : null);
    });
    await program.compile();
    this.kept = null;
    this.program = program;
    return program;
  }

  private corrections(): { correction1: number; correction2: number } {
    return {
      correction1: 1 - this.settings.beta1 ** (this.count + 1),
      correction2: 1 - this.settings.beta2 ** (this.count + 1),
    };
  }

  async step(batches: readonly PreparedBatch[], learningRate: number, seed: number): Promise<StepResult> {
    const items = countItems(batches);
    const program = await this.ready(batches, batches.length > 1 ? 'accumulate' : 'step');
    const update = { learning_rate: learningRate, items, ...this.corrections() };
    const inputs = (b: PreparedBatch, i: number): Record<string, Float32Array | Int32Array> => ({
      ...batchInputs(b),
      seed: Int32Array.of(seed, i),
    });
    let sum = 0;
    let gradNorm: number;
    if (batches.length === 1) {
      const out = program.call(`step_${keyOf(shapeOf(batches[0]!))}`, { ...inputs(batches[0]!, 0), ...update });
      sum = out['loss']![0]!;
      gradNorm = out['norm']![0]!;
    } else {
      batches.forEach((b, i) => (sum += program.call(`accumulate_${keyOf(shapeOf(b))}`, inputs(b, i))['loss']![0]!));
      gradNorm = program.call('update', update)['norm']![0]!;
    }
    const loss = sum / items;
    if (Number.isFinite(loss) && Number.isFinite(gradNorm)) {
      this.count++;
      this.stale = true;
    }
    return { loss, grad_norm: gradNorm, items };
  }

  async evaluate(batch: PreparedBatch): Promise<number> {
    const program = await this.ready([batch], 'evaluate');
    return program.call(`evaluate_${keyOf(shapeOf(batch))}`, batchInputs(batch))['loss']![0]!;
  }

  sync(): void {
    if (!this.stale || !this.program) return;
    this.names.forEach((name, i) => {
      const variable = this.variables.get(name)!;
      tf.tidy(() => variable.assign(tf.tensor(this.program!.read(`p${i}`) as Float32Array, variable.shape)));
    });
    this.stale = false;
  }

  refresh(): void {
    this.names.forEach((name, i) => this.program?.assign(`p${i}`, this.variables.get(name)!));
    this.stale = false;
  }

  moments(name: string): Moments {
    const i = this.names.indexOf(name);
    const size = this.variables.get(name)!.size;
    const read = (kind: string): Float32Array =>
      this.program
        ? (this.program.read(`${kind}${i}`) as Float32Array)
        : ((this.kept?.[i]![kind] as Float32Array | undefined) ?? new Float32Array(size));
    return { first: read('m'), second: read('v') };
  }

  async restore(steps: number, moments: (name: string) => Moments): Promise<void> {
    this.count = steps;
    const values = this.names.map((name) => moments(name));
    if (!this.program) this.kept = values.map(({ first, second }) => ({ m: first, v: second }));
    values.forEach(({ first, second }, i) => {
      this.program?.assign(`m${i}`, first);
      this.program?.assign(`v${i}`, second);
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
