/** What the options of compiled functions and programs may be. */
import * as tf from '@tensorflow/tfjs';
import * as kinds from '../../base/option_kinds.js';
import { OptionTable } from '../../base/options.js';
import { isDtype } from '../../runtime/data_types.js';
import type { DefineOptions, GraphCache, LoopOptions, ProgramOptions, TensorSpec, VariableSpec } from '../types.js';
import type { JitOptions } from './jit.js';

const SHAPE = kinds.named('a list of sizes', kinds.listOf(kinds.number()));
const NAMES = kinds.recordOf(kinds.text, 'an object of names');

export const JIT_TABLE = new OptionTable<JitOptions>(
  'jit()',
  {
    name: { kind: kinds.text },
    onCompile: { kind: kinds.func },
    captures: {
      kind: kinds.named('a list of tensors', (v) => Array.isArray(v) && v.every((each) => each instanceof tf.Tensor)),
    },
    xla: { kind: kinds.boolean },
  },
  {
    others: {
      // tf.function and torch.compile
      jit_compile: 'xla',
      input_signature: { why: 'a program is compiled for each set of shapes that it meets' },
      reduce_retracing: { why: 'a program is compiled for each set of shapes that it meets', off: [false] },
      autograph: { why: 'functions are traced as they are', off: [false] },
      static_argnums: { why: 'arguments that are no tensors are static' },
      static_argnames: { why: 'arguments that are no tensors are static' },
      dynamic: { why: 'a program is compiled for each set of shapes that it meets', off: [false, null] },
      fullgraph: { why: 'a function is compiled whole, or refused', off: [true] },
      backend: { why: 'XLA compiles' },
    },
  },
);

const GRAPH_CACHE_TABLE = new OptionTable<GraphCache>('graphCache', {
  folder: { kind: kinds.text },
  key: { kind: kinds.text },
});

const PROGRAM_TABLE = new OptionTable<ProgramOptions>('new Program()', {
  onCompile: { kind: kinds.func },
  graphCache: { kind: kinds.named('an object { folder, key }', kinds.object) },
  deferTracing: { kind: kinds.boolean },
  name: { kind: kinds.text },
  memoryAdvice: { kind: kinds.anyText },
});

/** Checks the options of a program, and those within them. */
export function checkProgram(options: ProgramOptions): void {
  PROGRAM_TABLE.check(options);
  GRAPH_CACHE_TABLE.check(options.graphCache);
}

export const DEFINE_TABLE = new OptionTable<DefineOptions>(
  'Program.define()',
  {
    xla: { kind: kinds.boolean },
    tensorflowProducts: { kind: kinds.boolean },
    compileOutlined: { kind: kinds.boolean },
    outside: { kind: kinds.named('a Map', (v) => v instanceof Map) },
  },
  {
    others: { jit_compile: 'xla' },
    clashes: (['tensorflowProducts', 'compileOutlined'] as const).map((option) => ({
      option,
      when: ({ [option]: on, xla }: Readonly<DefineOptions>) => on === true && xla === false,
      why: 'which has no effect with xla: false: nothing is compiled',
    })),
  },
);

export const LOOP_TABLE = new OptionTable<LoopOptions>('Program.defineLoop()', {
  body: { kind: kinds.text },
  steps: { kind: kinds.number() }, // loopBody() judges it
  feed: { kind: NAMES },
  index: { kind: kinds.text },
  each: { kind: kinds.listOf(kinds.text, 'names') },
  count: { kind: kinds.text },
  stop: { kind: kinds.text },
});

const DTYPE = kinds.named('the name of an element type', (v) => typeof v === 'string' && isDtype(v));

export const INPUT_TABLE = new OptionTable<TensorSpec>('an input of Program.define()', {
  shape: { kind: SHAPE },
  dtype: { kind: DTYPE },
});

export const VARIABLE_TABLE = new OptionTable<VariableSpec>('Program.variable()', {
  shape: { kind: SHAPE },
  dtype: { kind: kinds.oneOf('float32', 'bfloat16', 'uint8', 'int32', 'int64') },
  init: {
    kind: kinds.named("'zeros' or a function that gives bytes", (v) => v === 'zeros' || typeof v === 'function'),
  },
});
