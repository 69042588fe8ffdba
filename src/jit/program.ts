/**
 * A program: named variables that live on the device, and functions over them that XLA compiles.
 */
import * as tf from '@tensorflow/tfjs';
import { TracingError } from '../errors/index.js';
import type {
  Bytes,
  DefineOptions,
  InputValue,
  LoopOptions,
  ProgramOptions,
  TensorSpec,
  TracedFunction,
  VariableSpec,
} from './types.js';

/**
 * Named variables on the device and compiled functions over them. Needs the `tensorflow` backend.
 *
 * Order of use: `variable` and `define`, then `compile` once, then `run` as often as wanted, then `dispose`.
 *
 * @example
 * const program = new Program();
 * program.variable('total', { shape: [2], dtype: 'float32' });
 * program.define('add', { x: { shape: [2], dtype: 'float32' } }, ({ x }, { total }) => {
 *   const sum = tf.add(total, x);
 *   return { outputs: { sum }, assign: { total: sum } };
 * });
 * await program.compile();
 * const { sum } = program.run('add', { x: [1, 2] });
 * program.dispose();
 */
export class Program {
  constructor(readonly options: ProgramOptions = {}) {}

  /** Declares a variable. @throws TracingError after compile(), or when the name is taken */
  variable(_name: string, _spec: VariableSpec): void {
    throw new TracingError('not built yet');
  }

  /**
   * Traces `fn` on symbolic tensors and adds it under `name`. Variables read before they are assigned: assignments
   * take place together when the function ends. A variable costs nothing in functions that do not touch it.
   * Nothing is compiled before the first run, so defining many functions is cheap.
   */
  define(_name: string, _inputs: Record<string, TensorSpec>, _fn: TracedFunction, _options?: DefineOptions): void {
    throw new TracingError('not built yet');
  }

  /**
   * Adds a function that repeats another inside the device. Its inputs are those of the body without `index`; it returns each output
   * of the body stacked over the iterations, [steps, ...shape] (zeros where the loop stopped before), and `iterations`
   * (int32 scalar). Assignments of the body carry over from iteration to iteration.
   */
  defineLoop(_name: string, _options: LoopOptions): void {
    throw new TracingError('not built yet');
  }

  /** Hands the graph to TensorFlow and fills the variables. */
  async compile(): Promise<void> {
    throw new TracingError('not built yet');
  }

  /** Runs a function; the first run of each compiles it. The tensors returned are on the tensorflow backend and the caller's to dispose (a tidy does). */
  run(_name: string, _inputs?: Record<string, InputValue>): Record<string, tf.Tensor> {
    throw new TracingError('not built yet');
  }

  /** As run(), but the outputs come as typed arrays, and no tensor is left behind: the cheaper form for small outputs. */
  call(_name: string, _inputs?: Record<string, InputValue>): Record<string, Float32Array | Int32Array | Uint8Array> {
    throw new TracingError('not built yet');
  }

  /** Sets one variable from bytes of its declared dtype, or from a tensor. */
  assign(_name: string, _value: Bytes | tf.Tensor): void {
    throw new TracingError('not built yet');
  }

  /** Sets many variables; bytes are asked for in groups of bounded size. */
  async assignAll(_values: Record<string, () => Bytes | Promise<Bytes>>): Promise<void> {
    throw new TracingError('not built yet');
  }

  /** The value of a variable: Float32Array for float32 and bfloat16 (widened), Int32Array for int32, Uint8Array for uint8, BigInt64Array for int64. */
  read(_name: string): Float32Array | Int32Array | Uint8Array | BigInt64Array {
    throw new TracingError('not built yet');
  }

  /** The bytes of a variable in its declared dtype. */
  readBytes(_name: string): Uint8Array {
    throw new TracingError('not built yet');
  }

  /** Sets variables (all without names) back to zeros, on the device. */
  zero(_names?: readonly string[]): void {
    throw new TracingError('not built yet');
  }

  /** Frees the session and all variables. Idempotent; any later use throws DisposedError. */
  dispose(): void {}
}
