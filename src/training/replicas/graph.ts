/**
 * The graph of a training step over several devices. Each has all values and works on some rows of a batch. Gradients travel in buckets: each
 * trained tensor belongs to one device, which sums its gradients, keeps its moments, updates it and gives the new value to the others. So each
 * device sends and gets what a ring would send, moments lie once, and sums have one order.
 */
import * as tf from '@tensorflow/tfjs';
import type { Pieces } from '../../base/pieces.js';
import { bytesOfTensor } from '../../engine/file_tensors.js';
import {
  type Place,
  type Placement,
  ReplicaGraph,
  type ReplicaOptions,
  type Traced,
} from '../../jit/program/replicas.js';
import type { TensorSpec, TraceResult } from '../../jit/index.js';
import type { WeightBytes } from '../../layers/index.js';
import { clipOf, squareSum } from '../adamw.js';
import { lossAndGradients, lossInPieces, type BatchTensors } from '../objective.js';
import {
  adamwOf,
  batchSpecs,
  compilesBlocks,
  frozenStorages,
  frozenWeights,
  functions,
  KEPT,
  type Kept,
  type ProgramPlan,
  scalar,
  SEED,
  UPDATE,
  variables,
} from '../step_program.js';

/** Most elements that travel as one tensor. */
const BUCKET = 2 ** 26;

type Tensors = Record<string, tf.Tensor>;

/** Trained tensors that travel together, by their numbers, and the device that they belong to. */
export interface Bucket {
  owner: number;
  members: readonly number[];
  size: number;
}

/** Each tensor to the device that has least so far, the largest first. @param sizes elements of each */
export function bucketsOf(sizes: readonly number[], devices: number, most = BUCKET): Bucket[] {
  const loads = new Array<number>(devices).fill(0);
  const owned: number[][] = Array.from({ length: devices }, () => []);
  const bySize = sizes.map((size, i) => [size, i] as const).sort(([a, i], [b, j]) => b - a || i - j);
  for (const [size, i] of bySize) {
    const owner = loads.indexOf(Math.min(...loads));
    loads[owner]! += size;
    owned[owner]!.push(i);
  }
  return owned.flatMap((members, owner) => {
    const buckets: { owner: number; members: number[]; size: number }[] = [];
    for (const i of members.sort((a, b) => a - b)) {
      const last = buckets.at(-1);
      if (last && last.size + sizes[i]! <= most) {
        last.members.push(i);
        last.size += sizes[i]!;
      } else buckets.push({ owner, members: [i], size: sizes[i]! });
    }
    return buckets;
  });
}

/** A graph that was traced, and what is in it. */
interface TracedGraph {
  graph: ReplicaGraph;
  defined: ReadonlySet<string>;
  buckets: readonly Bucket[];
}

/**
 * The graph, not yet loaded, and the buckets. What is fed to device k has its number behind its name.
 * @param session `alive` is asked between pieces of the traces; what it throws ends them
 */
export async function replicaGraph(
  plan: ProgramPlan,
  placements: readonly Placement[],
  session: Pick<ReplicaOptions, 'config' | 'target' | 'alive'>,
): Promise<TracedGraph> {
  const graph = new ReplicaGraph({
    name: 'training',
    placements,
    ...session,
    onCompile: plan.options.on_compile,
    memoryAdvice: 'Use a smaller batch, shorter rows or gradient checkpointing.',
  });
  try {
    return await traceAll(graph, plan, placements);
  } catch (error) {
    graph.dispose(true);
    throw error;
  }
}

async function traceAll(
  graph: ReplicaGraph,
  plan: ProgramPlan,
  placements: readonly Placement[],
): Promise<TracedGraph> {
  const { target, options, accumulates, settings } = plan;
  const names = [...plan.trained.keys()];
  const shapes = [...plan.trained.values()].map(({ shape }) => shape);
  const sizes = [...plan.trained.values()].map(({ size }) => size);
  const devices = placements.map((_, k) => k);
  const buckets = bucketsOf(sizes, devices.length);
  const xla = options.xla ?? true;
  const compileOutlined = xla && compilesBlocks(plan);
  const ownerOf = new Map(buckets.flatMap(({ owner, members }) => members.map((i) => [i, owner] as const)));
  const frozen = frozenStorages(plan);
  const bytesOf = (i: number, kind: Kept): { init?: WeightBytes } => {
    const init = plan.initial(i, kind);
    return init ? { init } : {};
  };
  for (const k of devices) {
    shapes.forEach((shape, i) => {
      for (const kind of KEPT)
        if (kind === 'value' || ownerOf.get(i) === k)
          graph.variable(k, variables.kept(kind, i), { shape, dtype: 'float32', ...bytesOf(i, kind) });
      if (accumulates) graph.variable(k, variables.sum(i), { shape, dtype: 'float32' });
    });
    [...frozen.values()].forEach((storage, j) => {
      for (const [suffix, spec] of Object.entries(storage.variables))
        graph.variable(k, variables.frozen(j, suffix), spec);
    });
  }

  const bucketName = (j: number): string => `b${j}`;
  const flat = (j: number): TensorSpec => ({ shape: [buckets[j]!.size], dtype: 'float32' });
  const packed = (tensors: (i: number) => tf.Tensor): Tensors =>
    Object.fromEntries(
      buckets.map(({ members }, j) => [bucketName(j), tf.concat(members.map((i) => tf.reshape(tensors(i), [-1])))]),
    );
  const unpacked = (inputs: Tensors, of: readonly number[]): { i: number; tensor: tf.Tensor }[] =>
    of.flatMap((j) => {
      let at = 0;
      return buckets[j]!.members.map((i) => {
        const piece = tf.slice(inputs[bucketName(j)]!, [at], [sizes[i]!]);
        at += sizes[i]!;
        return { i, tensor: tf.reshape(piece, shapes[i]!) };
      });
    });
  const numbers = buckets.map((_, j) => j);
  const ownedBy = (k: number): number[] => numbers.filter((j) => buckets[j]!.owner === k);
  const owners = devices.filter((k) => ownedBy(k).length > 0);
  const specsOf = (of: readonly number[]): Record<string, TensorSpec> =>
    Object.fromEntries(of.map((j) => [bucketName(j), flat(j)]));
  const values = (vars: Tensors): tf.Tensor[] => names.map((_, i) => vars[variables.kept('value', i)]!);
  const trace = (
    name: string,
    inputs: Record<string, TensorSpec>,
    fn: Parameters<ReplicaGraph['trace']>[2],
    blocks = false,
  ): Promise<Traced> =>
    // prettier-ignore
    graph.trace(name, inputs, fn, { xla, ...(blocks && { compileOutlined }) });

  const squares = await onEach(owners, (k) =>
    trace(`squares_${k}`, specsOf(ownedBy(k)), (inputs) => ({
      outputs: { square: squareSum(unpacked(inputs, ownedBy(k)).map(({ tensor }) => tensor)) },
    })),
  );
  const updates = await onEach(owners, (k) =>
    trace(
      `update_${k}`,
      { ...specsOf(ownedBy(k)), square: scalar, loss: scalar, ...UPDATE },
      function* (inputs, vars): Pieces<TraceResult> {
        const total = tf.sqrt(inputs['square']!) as tf.Scalar;
        const { norm, scale } = clipOf(total, inputs['items'] as tf.Scalar, settings.max_grad_norm);
        const own = unpacked(inputs, ownedBy(k)).map(({ i, tensor }) => ({ name: names[i]!, i, gradient: tensor }));
        const assign = yield* adamwOf(own, settings, inputs, vars, norm, scale, inputs['loss'] as tf.Scalar);
        const next = packed((i) => assign[variables.kept('value', i)] ?? tf.zeros(shapes[i]!));
        return {
          outputs: { ...Object.fromEntries(ownedBy(k).map((j) => [bucketName(j), next[bucketName(j)]!])), norm },
          assign,
        };
      },
    ),
  );
  const others = (k: number): number[] => numbers.filter((j) => buckets[j]!.owner !== k);
  const takers = devices.filter((k) => others(k).length > 0);
  const takes = await onEach(takers, (k) =>
    trace(`take_${k}`, specsOf(others(k)), (inputs) => ({
      outputs: { done: tf.scalar(1) },
      assign: Object.fromEntries(
        unpacked(inputs, others(k)).map(({ i, tensor }) => [variables.kept('value', i), tensor]),
      ),
    })),
  );
  const lossOf = (entry: string, losses: readonly Place[]): Place => graph.sum(entry, 0, 'loss', losses);
  /** From gradients on all devices to new values on all. */
  const finish = (entry: string, gradients: readonly Record<string, Place>[], loss: Place): void => {
    const sums = new Map(
      numbers.map((j) => {
        const name = bucketName(j);
        return [
          name,
          graph.sum(
            entry,
            buckets[j]!.owner,
            name,
            gradients.map((of) => of[name]!),
          ),
        ];
      }),
    );
    const own = (k: number): Record<string, Place> =>
      Object.fromEntries(ownedBy(k).map((j) => [bucketName(j), sums.get(bucketName(j))!]));
    const parts = owners.map((k) => graph.call(entry, k, squares.get(k)!, own(k))['square']!);
    const square = graph.sum(entry, 0, 'square', parts);
    const next: Record<string, Place> = {};
    for (const k of owners) {
      const given = Object.fromEntries(
        Object.entries(UPDATE).map(([name, spec]) => [name, graph.feed(entry, k, `${name}${k}`, spec)]),
      );
      const { norm, ...values } = graph.call(entry, k, updates.get(k)!, { ...own(k), square, loss, ...given });
      Object.assign(next, values);
      graph.fetch(entry, k === owners[0] ? 'norm' : `norm${k}`, norm!);
    }
    for (const [k, take] of takes) graph.fetch(entry, `done${k}`, graph.call(entry, k, take, next)['done']!);
  };

  const defined = new Set<string>();
  const batchOf = (entry: string, k: number, specs: Record<string, TensorSpec>): Record<string, Place> =>
    Object.fromEntries(Object.entries(specs).map(([name, spec]) => [name, graph.feed(entry, k, `${name}${k}`, spec)]));
  for (const { shape, kinds } of plan.shapes) {
    const specs = batchSpecs(shape);
    const gradients = (inputs: Tensors, vars: Tensors): Pieces<{ loss: tf.Scalar; gradients: tf.Tensor[] }> =>
      lossAndGradients(target, names, values(vars), frozenWeights(frozen, vars), inputs as unknown as BatchTensors, {
        ...options,
        seed: inputs['seed'] as tf.Tensor1D,
      });
    const begin = (name: string): void => {
      defined.add(name);
      graph.entry(name);
    };
    if (kinds.has('step')) {
      const name = functions.of('step', shape);
      const fn = await trace(
        name,
        { ...specs, ...SEED },
        function* (inputs, vars): Pieces<TraceResult> {
          const { loss, gradients: own } = yield* gradients(inputs, vars);
          return { outputs: { loss, ...packed((i) => own[i]!) } };
        },
        true,
      );
      begin(name);
      const made = devices.map((k) => graph.call(name, k, fn, batchOf(name, k, { ...specs, ...SEED })));
      const loss = lossOf(
        name,
        made.map((each) => each['loss']!),
      );
      graph.fetch(name, 'loss', loss);
      finish(name, made, loss);
    }
    if (kinds.has('accumulate')) {
      const name = functions.of('accumulate', shape);
      const fn = await trace(
        name,
        { ...specs, ...SEED },
        function* (inputs, vars): Pieces<TraceResult> {
          const { loss, gradients: more } = yield* gradients(inputs, vars);
          const sums = more.map((g, i) => [variables.sum(i), tf.add(vars[variables.sum(i)]!, g)] as const);
          return { outputs: { loss }, assign: Object.fromEntries(sums) };
        },
        true,
      );
      begin(name);
      const made = devices.map((k) => graph.call(name, k, fn, batchOf(name, k, { ...specs, ...SEED })));
      graph.fetch(
        name,
        'loss',
        lossOf(
          name,
          made.map((each) => each['loss']!),
        ),
      );
    }
    if (kinds.has('evaluate')) {
      const name = functions.of('evaluate', shape);
      const fn = await trace(name, specs, function* (inputs, vars): Pieces<TraceResult> {
        const trained = Object.fromEntries(values(vars).map((value, i) => [names[i]!, value]));
        const batch = inputs as unknown as BatchTensors;
        const how = { ...options, grads: false };
        return { outputs: { loss: yield* lossInPieces(target, trained, frozenWeights(frozen, vars), batch, how) } };
      });
      begin(name);
      const made = devices.map((k) => graph.call(name, k, fn, batchOf(name, k, specs)));
      graph.fetch(
        name,
        'loss',
        lossOf(
          name,
          made.map((each) => each['loss']!),
        ),
      );
    }
  }
  if (accumulates) {
    const name = functions.update;
    const fn = await trace('sums', {}, (_inputs, vars) => {
      const sums = names.map((_, i) => vars[variables.sum(i)]!);
      const cleared = sums.map((sum, i) => [variables.sum(i), tf.zerosLike(sum)] as const);
      return { outputs: { loss: tf.scalar(0), ...packed((i) => sums[i]!) }, assign: Object.fromEntries(cleared) };
    });
    graph.entry(name);
    defined.add(name);
    const made = devices.map((k) => graph.call(name, k, fn, {}));
    finish(
      name,
      made,
      lossOf(
        name,
        made.map((each) => each['loss']!),
      ),
    );
  }
  return { graph, defined, buckets };
}

/** What is made for each device, one after another. */
async function onEach<T>(devices: readonly number[], make: (k: number) => Promise<T>): Promise<Map<number, T>> {
  const made = new Map<number, T>();
  for (const k of devices) made.set(k, await make(k));
  return made;
}

/** Bytes of a model's own variable. */
export const ownBytes =
  (variable: tf.Variable): WeightBytes =>
  () =>
    bytesOfTensor(variable, 'F32');
