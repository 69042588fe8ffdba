/** jit(): tf.function for tfjs. */
import type * as tf from '@tensorflow/tfjs';
import { DisposedError } from '../../base/errors.js';
import { isTracing } from '../trace/backend.js';
import { mapTensors, nestKey, tensorsOf, type Nest } from './nest.js';
import { nativeDtype, nativeId } from '../../runtime/binding.js';
import { Program } from './program.js';
import type { CompileHook, Dtype, TensorSpec } from '../types.js';

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
  /** Programs compiled so far: one per structure, shapes, dtypes and static arguments. */
  readonly cacheSize: number;
  /** Frees all programs; later calls throw DisposedError. */
  dispose(): void;
}

interface Compiled {
  program: Program;
  /** The result with the tensors of the trace; run() puts new ones in their places. */
  template: Nest;
}

function native(x: tf.Tensor): Dtype {
  nativeId(x);
  return nativeDtype(x);
}

function compile(fn: (...args: never[]) => Nest, args: readonly Nest[], options: JitOptions): Compiled {
  const name = options.name ?? 'jit';
  const program = new Program({ name, onCompile: options.onCompile });
  const captures = options.captures ?? [];
  const tensors = [...tensorsOf(args), ...captures];
  const inputs: Record<string, TensorSpec> = {};
  tensors.forEach((x, i) => (inputs[`x${i}`] = { shape: x.shape, dtype: native(x) }));
  const first = tensors.length - captures.length;
  const outside = new Map(captures.map((x, i) => [x.dataId, `x${first + i}`]));
  let template: Nest = null;
  try {
    program.define(
      'call',
      inputs,
      (given) => {
        let next = 0;
        const result = fn(...(args.map((arg) => mapTensors(arg, () => given[`x${next++}`]!)) as never[]));
        const outputs: Record<string, tf.Tensor> = {};
        template = mapTensors(result, (y) => {
          outputs[`y${Object.keys(outputs).length}`] = y;
          return y;
        });
        return { outputs };
      },
      { xla: options.xla ?? true, outside },
    );
    program.compileSync();
  } catch (error) {
    program.dispose();
    throw error;
  }
  return { program, template };
}

/**
 * Compiles a pure function of tensors with XLA, once per structure, shapes, dtypes and static arguments. Gradients
 * (tf.grads, tf.variableGrads, tf.customGrad) work inside. Called from traced code, the function is traced into it.
 *
 * @param fn must not read values, assign tf.Variables, draw unseeded random numbers, or use tensors from outside that `captures` does not list
 * @returns a function of the same arguments; its tensors are new and the caller's to dispose
 * @throws (when called) TracingError for what cannot be traced, DeviceError when the tensorflow backend is not loaded
 * @example
 * const step = jit((w: tf.Tensor, x: tf.Tensor) => tf.sub(w, tf.mul(0.1, tf.grad((w) => tf.sum(tf.square(tf.mul(w, x))))(w))));
 * const next = step(tf.tensor1d([1, 2]), tf.tensor1d([3, 4]));
 */
export function jit<A extends readonly Nest[], R extends Nest>(
  fn: (...args: A) => R,
  options: JitOptions = {},
): JitFunction<A, R> {
  const cache = new Map<string, Compiled>();
  let disposed = false;
  const name = options.name ?? (fn.name || 'jit');
  const call = (...args: A): R => {
    if (disposed) throw new DisposedError(`The compiled function '${name}' was disposed.`, { name });
    if (isTracing()) return fn(...args);
    const key = nestKey(args, native);
    let compiled = cache.get(key);
    if (!compiled) {
      compiled = compile(fn as unknown as (...args: never[]) => Nest, args, { ...options, name });
      cache.set(key, compiled);
    }
    const inputs: Record<string, tf.Tensor> = {};
    [...tensorsOf(args), ...(options.captures ?? [])].forEach((x, i) => (inputs[`x${i}`] = x));
    const outputs = compiled.program.run('call', inputs);
    let next = 0;
    return mapTensors(compiled.template, () => outputs[`y${next++}`]!) as R;
  };
  const dispose = (): void => {
    for (const { program } of cache.values()) program.dispose();
    cache.clear();
    disposed = true;
  };
  return Object.defineProperties(call, {
    cacheSize: { get: () => cache.size },
    dispose: { value: dispose },
  }) as JitFunction<A, R>;
}
