/**
 * The model as one program that several devices run at once, each with a part of every layer (tensor parallelism): the functions of a decoding
 * program (decoding_program.ts), over the layers of one device and its parts of the weights.
 */
import * as tf from '@tensorflow/tfjs';
import { type ArrayPart, partShape, takePart } from '../../base/array_parts.js';
import { ArgumentError } from '../../base/errors.js';
import { allReduce } from '../../jit/ops/all_reduce.js';
import { ReplicatedProgram } from '../../jit/program/replicated.js';
import { type Across, rowwise, vocabularyParallel } from '../../layers/parallel.js';
import type { WeightBytes, WeightStorage } from '../../layers/storage.js';
import { isStored, type StoredMatrix, type Weight, type WeightSpec } from '../../layers/weights.js';
import { dtypeBytes } from '../../runtime/data_types.js';
import { onGpu } from '../../runtime/index.js';
import type { ProgramFloat } from '../file_tensors.js';
import type { NetworkWeights } from '../network_weights.js';
import type { TensorParallel, WeightCut } from '../recurrent_lm.js';
import { declareFunctions, type DecodingProgramOptions, MEMORY_ADVICE, packFor } from './decoding_program.js';
import { variables } from './names.js';
import { bytesOf, storageOf, weightVariables } from './program_weights.js';

/** Where a matrix of a vocabulary's part has whose part it is. */
const PLACE = '.place';

/** 1 for a device and 0 for others. */
const placeOf = (device: number, count: number): Float32Array =>
  Float32Array.from({ length: count }, (_, k) => Number(k === device));

/** Declares variables and functions for a model; call compile() on the result. @param devices their numbers */
export function buildParallelProgram(
  weights: NetworkWeights,
  options: DecodingProgramOptions,
  plan: TensorParallel,
  devices: readonly number[],
): ReplicatedProgram {
  const program = new ReplicatedProgram({
    ...{ name: weights.network.name, devices, gpu: onGpu(), sums: options.sums ?? (onGpu() ? 'inside' : 'between') },
    ...{ memoryAdvice: MEMORY_ADVICE, onCompile: options.onCompile },
  });
  try {
    const { count, network } = plan;
    const { group } = program;
    const across: Across = { count, sum: (x) => allReduce(x, group) };
    const specs = weights.network.weightSpecs();
    const stores = new Stores(weights, options, plan, across);
    const each = devices.map((_, k) => new Map(specs.map((spec) => [spec.name, stores.of(spec, k)])));
    const packs = each.map((storages) => packFor(specs, storages, options));
    const all = each.map((storages, k) => weightVariables(storages, packs[k]!));
    for (const name of all[0]!.keys()) program.variable(name, (k) => all[k]!.get(name)!);
    program.variable(variables.device, (k) => ({ shape: [count], dtype: 'float32', init: () => placeOf(k, count) }));
    /** Devices that compute the same in the same order choose the same; that nothing ever depends on it costs one small sum a token. */
    const agreed = (tokens: tf.Tensor1D, vars: Record<string, tf.Tensor>): tf.Tensor1D => {
      const first = tf.slice(vars[variables.device]!, [0], [1]);
      return tf.cast(across.sum(tf.mul(tf.cast(tokens, 'float32'), first)), 'int32') as tf.Tensor1D;
    };
    declareFunctions(program, { network, storages: each[0]!, pack: packs[0]!, agreed }, options);
    return program;
  } catch (error) {
    program.dispose();
    throw error;
  }
}

/** What devices keep of weights. A weight is read once for all of them, as long as they ask one after another. */
class Stores {
  private readonly readings = new Map<string, { bytes: Promise<ArrayBufferView>; left: number }>();

  constructor(
    private readonly weights: NetworkWeights,
    private readonly options: DecodingProgramOptions,
    private readonly plan: TensorParallel,
    private readonly across: Across,
  ) {}

  of(spec: WeightSpec, device: number): WeightStorage {
    const cut = this.plan.weight(spec.name);
    const part = cut?.part(device);
    const storage = this.local(spec, part);
    return cut ? this.joined(storage, cut, device) : storage;
  }

  /** The part as a weight by itself. */
  private local(spec: WeightSpec, part: ArrayPart | undefined): WeightStorage {
    const { weights, options } = this;
    const form = weights.storedForm(spec.name);
    if (form?.storage) {
      if (!part) return form.storage();
      const own = form.part?.(part).storage?.();
      if (own) return own;
      throw new ArgumentError(
        `tp_plan: '${spec.name}' is stored in a form that cannot be cut for several devices. Put whole layers on devices: device_map: 'auto'.`,
        { option: 'tp_plan', weight: spec.name },
      );
    }
    const shape = part ? partShape(spec.shape, part) : spec.shape;
    const bytes = (type: ProgramFloat): WeightBytes => this.reading(spec, type, part);
    return storageOf(weights, { ...spec, shape }, options.dtype, options.roundedRows, bytes);
  }

  private reading({ name, shape }: WeightSpec, type: ProgramFloat, part: ArrayPart | undefined): WeightBytes {
    const key = `${name} ${type}`;
    return async () => {
      let reading = this.readings.get(key);
      if (!reading)
        this.readings.set(key, (reading = { bytes: bytesOf(this.weights, name, type)(), left: this.plan.count }));
      if (--reading.left === 0) this.readings.delete(key);
      const { buffer, byteOffset, byteLength } = await reading.bytes;
      const whole = new Uint8Array(buffer, byteOffset, byteLength);
      return part ? takePart(whole, shape, dtypeBytes(type === 'F32' ? 'float32' : 'bfloat16'), part) : whole;
    };
  }

  /** A part whose results are put together with those of others. */
  private joined(storage: WeightStorage, { sums, vocabulary }: WeightCut, device: number): WeightStorage {
    const { across } = this;
    const { count } = across;
    if (sums) return wrapped(storage, (local) => rowwise(local, across, sums.normed));
    if (vocabulary === undefined) return storage;
    const place = { shape: [count], dtype: 'float32', init: () => placeOf(device, count) } as const;
    return wrapped({ ...storage, variables: { ...storage.variables, [PLACE]: place } }, (local, vars) =>
      vocabularyParallel(local, across, vars[PLACE]!, vocabulary),
    );
  }
}

function wrapped(
  storage: WeightStorage,
  wrap: (local: StoredMatrix, vars: Readonly<Record<string, tf.Tensor>>) => StoredMatrix,
): WeightStorage {
  return {
    variables: storage.variables,
    takesWhole: storage.takesWhole,
    weight: (vars): Weight => {
      const local = storage.weight(vars);
      if (!isStored(local)) throw new TypeError('A matrix that is cut must be a stored one');
      return wrap(local, vars);
    },
  };
}
