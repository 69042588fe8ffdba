/** The vocabulary of programs: what a tensor, a variable and a function look like from outside. */
import type { HeldBytes } from '../base/blocks.js';
import type * as tf from '@tensorflow/tfjs';

import type { Dtype } from '../runtime/data_types.js';

export type { Dtype };

/** Shape and element type of one tensor. */
export interface TensorSpec {
  shape: readonly number[];
  dtype: Dtype;
}

/** Types that a variable may have. int32 ones are kept as int64 on the device, which no reader notices. */
export type VariableDtype = 'float32' | 'bfloat16' | 'uint8' | 'int32' | 'int64';

/** Raw little-endian bytes of a tensor in row-major order; any view of them will do. */
export type Bytes = ArrayBufferView;
export type { HeldBytes };

/** A variable: state that stays on the device between calls. */
export interface VariableSpec {
  shape: readonly number[];
  dtype: VariableDtype;
  /**
   * What compile() fills it with: zeros (default), or bytes asked for when their turn comes, so that a large checkpoint
   * is never whole in host memory. The bytes are in the declared dtype.
   */
  init?: 'zeros' | (() => Bytes | HeldBytes | Promise<Bytes | HeldBytes>);
}

/** What a traced function gives back. */
export interface TraceResult {
  /** Tensors handed to the caller of run(), by name. */
  outputs?: Record<string, tf.Tensor>;
  /** New values of variables, by name; shapes and dtypes must be those declared. */
  assign?: Record<string, tf.Tensor>;
}

/**
 * Pure function of inputs and variables; it is traced once and must not read values. It may be a generator that returns its result: at each
 * `yield` of one that compile() traces (`deferTracing`) the event loop may run. A yield must not lie within tf.tidy or a gradient.
 */
export type TracedFunction = (
  inputs: Record<string, tf.Tensor>,
  vars: Record<string, tf.Tensor>,
) => TraceResult | Generator<undefined, TraceResult, undefined>;

export interface DefineOptions {
  /** Compile with XLA (default true). False runs the same graph op by op in TensorFlow: slower, starts at once. */
  xla?: boolean;
  /**
   * Large matrix products (matMulStored of more than a few rows) run as kernels of TensorFlow, which on a CPU are oneDNN's. What lies
   * between them is outlined into functions that XLA compiles, functions of the same text once. Default false: all is one program of XLA.
   */
  tensorflowProducts?: boolean;
  /**
   * The functions outlined between borders (outlineBorder) are programs of XLA one after another, and those of the same text are one
   * program: of many equal stages one is compiled. The graph around them costs some tens of microseconds a call. Default false: all
   * is one program of XLA.
   */
  compileOutlined?: boolean;
  /** Eager tensors that the function may use as if they were inputs: data id -> name of the input that stands for it. */
  outside?: ReadonlyMap<object, string>;
}

export interface LoopOptions {
  /** Name of the function that is repeated. */
  body: string;
  /** Most iterations. */
  steps: number;
  /** Inputs of the body that take an output of the iteration before: input name -> output name. Others stay as given to run(). */
  feed?: Record<string, string>;
  /** Input of the body (int32 scalar) that is given the number of the iteration, from 0. */
  index?: string;
  /** Inputs of the body that the loop takes stacked, [steps, ...shape], and hands out one by one. */
  each?: readonly string[];
  /** Name of one more input of the loop (int32 scalar): how many iterations it makes at most in this call. */
  count?: string;
  /** Output of the body (bool scalar): the loop ends after an iteration where it is true. */
  stop?: string;
}

/** Where a compilation stands: XLA compiles a function at its first run (`compile`), `trace` and `load` come before. */
export type CompilePhase = 'trace' | 'load' | 'upload' | 'compile';

/** Called when a phase ends, with its duration in milliseconds; for 'compile' also when it starts (ms is then null). */
export type CompileHook = (name: string, phase: CompilePhase, ms: number | null) => void;

/** Where the graphs of programs are kept for the next process. */
export interface GraphCache {
  /** Made when missing. */
  folder: string;
  /**
   * All that the traced functions depend on besides names, shapes and dtypes of variables and the names of functions: the code's version
   * and the values that it closes over. Two programs of one key must have the same functions.
   */
  key: string;
}

export interface ProgramOptions {
  onCompile?: CompileHook;
  /** Keeps the graph, and takes a kept one instead of tracing: functions are then traced at compile(), if at all. Default: none. */
  graphCache?: GraphCache;
  /** Functions are traced by compile(), between which others may run, and what is wrong with them is told then. Default false: when they are defined. */
  deferTracing?: boolean;
  /** Shown in error messages and in XLA's profiles. */
  name?: string;
  /** What makes the program smaller, in a sentence, for who reads that the device has not enough memory for it. */
  memoryAdvice?: string;
}

/** Data that run() and assign() take: a tfjs tensor, or a typed array in row-major order. */
export type InputValue = tf.Tensor | Float32Array | Int32Array | Uint8Array | readonly number[] | number;
