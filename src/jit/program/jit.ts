/** jit(): tf.function for tfjs. */
import * as tf from '@tensorflow/tfjs';
import { DisposedError } from '../../base/errors.js';
import { atOnce, isPieces, type Pieces } from '../../base/pieces.js';
import { isTracing } from '../trace/backend.js';
import { mapTensors, nestKey, tensorsOf, type Nest } from './nest.js';
import { nativeDtype } from '../../runtime/binding.js';
import { JIT_TABLE } from './option_rules.js';
import { refusePromise } from './function.js';
import { Program } from './program.js';
import type { CompileHook, TensorSpec, TraceResult } from '../types.js';

export interface JitOptions {
  /** Name in error messages and hooks; default the function's own, or 'jit'. */
  name?: string;
  onCompile?: CompileHook;
  /** Tensors and tf.Variables from outside that the function may use; their values of the moment enter each call. */
  captures?: readonly tf.Tensor[];
  /** Compile with XLA (default true). False runs the graph op by op. */
  xla?: boolean;
}

/** A compiled function. */
export interface JitFunction<A extends readonly Nest[], R extends Nest> {
  (...args: A): R;
  /**
   * The same, with the event loop free while XLA compiles and the program runs, and at each `yield` of a generator. The values of the arguments
   * are those of the moment of the call; the tensors of the result are known to no tidy.
   */
  run(...args: A): Promise<R>;
  /** Programs compiled so far: one per structure, shapes, dtypes and static arguments. */
  readonly cacheSize: number;
  /** Frees all programs; later calls throw DisposedError. */
  dispose(): void;
}

interface Compiled {
  program: Program;
  /** The result with the tensors of the trace, once that was made; run() puts new ones in their places. */
  template: () => Nest;
}

/** What jit() compiles: a function, or a generator that yields where others may run while it is traced. */
type Jittable<A extends readonly Nest[], R> = (...args: A) => R | Generator<undefined, R, undefined>;

/** Not yet compiled. @param later whether it is traced when it is compiled, in pieces, and not now */
function declared(fn: Jittable<never[], Nest>, given: readonly Nest[], options: JitOptions, later: boolean): Compiled {
  const name = options.name ?? 'jit';
  const captures = options.captures ?? [];
  // tensors that are captured have to be the same until the end of the trace
  const program = new Program({ name, onCompile: options.onCompile, deferTracing: later && captures.length === 0 });
  const args = given.map((arg) => mapTensors(arg, (x) => x)); // as they are now
  const tensors = [...tensorsOf(args), ...captures];
  const inputs: Record<string, TensorSpec> = {};
  tensors.forEach((x, i) => (inputs[`x${i}`] = { shape: x.shape, dtype: nativeDtype(x) }));
  const first = tensors.length - captures.length;
  const outside = new Map(captures.map((x, i) => [x.dataId, `x${first + i}`]));
  let template: Nest = null;
  try {
    program.define(
      'call',
      inputs,
      (given) => {
        let next = 0;
        const made = fn(...(args.map((arg) => mapTensors(arg, () => given[`x${next++}`]!)) as never[]));
        const outputsOf = (result: Nest): TraceResult => {
          refusePromise(name, result);
          const outputs: Record<string, tf.Tensor> = {};
          template = mapTensors(result, (y) => {
            outputs[`y${Object.keys(outputs).length}`] = y;
            return y;
          });
          return { outputs };
        };
        if (!isPieces(made)) return outputsOf(made);
        const pieces = made as Pieces<Nest>;
        return (function* () {
          return outputsOf(yield* pieces);
        })();
      },
      { xla: options.xla ?? true, outside },
    );
  } catch (error) {
    program.dispose();
    throw error;
  }
  return { program, template: () => template };
}

/**
 * Compiles a pure function of tensors with XLA, once per structure, shapes, dtypes and static arguments. Gradients
 * (tf.grads, tf.variableGrads, tf.customGrad) work inside. Called from traced code, the function is traced into it.
 *
 * @param fn a function, or a generator that gives the result and yields where the event loop may run while run() traces it; must not read values, assign tf.Variables, draw unseeded random numbers, or use tensors from outside that `captures` does not list
 * @returns a function of the same arguments; its tensors are new and the caller's to dispose
 * @throws (when called) TracingError for what cannot be traced, DeviceError when the tensorflow backend is not loaded
 * @example
 * const step = jit((w: tf.Tensor, x: tf.Tensor) => tf.sub(w, tf.mul(0.1, tf.grad((w) => tf.sum(tf.square(tf.mul(w, x))))(w))));
 * const next = step(tf.tensor1d([1, 2]), tf.tensor1d([3, 4]));
 */
export function jit<A extends readonly Nest[], R extends Nest>(
  fn: Jittable<A, R>,
  options: JitOptions = {},
): JitFunction<A, R> {
  JIT_TABLE.check(options);
  const cache = new Map<string, Compiled>();
  const loading = new Map<string, Promise<Compiled>>();
  let disposed = false;
  const name = options.name ?? (fn.name || 'jit');
  const alive = (): void => {
    if (disposed) throw new DisposedError(`The compiled function '${name}' was disposed.`, { name });
  };
  const made = (args: A, later: boolean): Compiled =>
    declared(fn as unknown as Jittable<never[], Nest>, args, { ...options, name }, later);
  const inputsOf = (args: A): Record<string, tf.Tensor> =>
    Object.fromEntries([...tensorsOf(args), ...(options.captures ?? [])].map((x, i) => [`x${i}`, x]));
  const resultOf = ({ template }: Compiled, outputs: Record<string, tf.Tensor>): R => {
    let next = 0;
    return mapTensors(template(), () => outputs[`y${next++}`]!) as R;
  };
  const call = (...args: A): R => {
    alive();
    if (isTracing()) {
      const result = fn(...args);
      return isPieces(result) ? atOnce(result as Pieces<R>) : result;
    }
    const key = nestKey(args, nativeDtype);
    let compiled = cache.get(key);
    if (!compiled) {
      compiled = made(args, false);
      try {
        compiled.program.compileSync();
      } catch (error) {
        compiled.program.dispose();
        throw error;
      }
      cache.set(key, compiled);
    }
    return resultOf(compiled, compiled.program.runSync('call', inputsOf(args)));
  };
  const load = async (key: string, args: A): Promise<Compiled> => {
    const compiled = made(args, true);
    try {
      await compiled.program.compile();
    } catch (error) {
      compiled.program.dispose();
      throw error;
    }
    if (disposed || cache.has(key)) compiled.program.dispose();
    else cache.set(key, compiled);
    alive();
    return cache.get(key)!;
  };
  const run = async (...args: A): Promise<R> => {
    alive();
    const key = nestKey(args, nativeDtype);
    // before anything is awaited: the caller may dispose of them
    const inputs = Object.fromEntries(
      Object.entries(inputsOf(args)).map(([input, x]) => [input, tf.keep(tf.clone(x))]),
    );
    try {
      let compiled = cache.get(key);
      if (!compiled) {
        const promise = loading.get(key) ?? load(key, args).finally(() => loading.delete(key));
        loading.set(key, promise);
        compiled = await promise;
      }
      return resultOf(compiled, await compiled.program.run('call', inputs));
    } finally {
      tf.dispose(inputs);
    }
  };
  const dispose = (): void => {
    for (const { program } of cache.values()) program.dispose();
    cache.clear();
    disposed = true;
  };
  return Object.defineProperties(call, {
    run: { value: run },
    cacheSize: { get: () => cache.size },
    dispose: { value: dispose },
  }) as JitFunction<A, R>;
}
