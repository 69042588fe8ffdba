import { expect } from 'chai';
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../../src/base/errors.js';
import { jit, Program } from '../../src/jit/index.js';
import { configureRuntime, selectBackend, setupRuntime } from '../../src/runtime/index.js';

/** The error that a call throws, at once or later. */
async function errorOf(call: () => unknown): Promise<Error> {
  try {
    await call();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

/** What a program without the compiler's help could pass. */
const wrong = (options: object): never => options as never;

describe('options of the runtime and of compiled functions', () => {
  const cases: readonly (readonly [name: string, call: () => unknown, message: RegExp])[] = [
    ['an unknown one', () => configureRuntime(wrong({ compilCache: true })), /no option compilCache\. Did you mean compileCache\?/],
    ['snake case', () => configureRuntime(wrong({ log_level: 1 })), /no option log_level\. Did you mean logLevel\?/],
    ["TensorFlow's name", () => configureRuntime(wrong({ memory_limit: 1 })), /memory_limit\. It is called gpuMemoryLimit here/],
    ['what is elsewhere', () => configureRuntime(wrong({ device: 'cpu' })), /device: "cpu", which is not supported: the device is chosen by/],
    ['no object', () => configureRuntime(wrong([])), /configureRuntime\(\) got .* where its options belong/],
    ['a level', () => configureRuntime(wrong({ logLevel: 4 })), /logLevel is 4; expected 0, 1, 2 or 3/],
    ['a text for a switch', () => configureRuntime(wrong({ tf32: 'false' })), /tf32 is "false"; expected true or false/],
    ['a flag without dashes', () => configureRuntime({ xlaFlags: ['xla_dump'] }), /xlaFlags is .*expected a list of flags/],
    ['two flags in one', () => configureRuntime({ tfXlaFlags: ['--a --b'] }), /tfXlaFlags is .*without spaces/],
    ['no threads', () => configureRuntime({ threads: 0 }), /threads is 0; expected an integer of 1 or more/],
    ['half a GPU', () => configureRuntime({ gpus: [0.5] }), /gpus is .*; expected a list of numbers of GPUs/],
    ['no effect', () => configureRuntime({ gpus: [], gpuMemoryLimit: 5 }), /gpuMemoryLimit is 5, which has no effect without GPUs/],
    ['an empty folder', () => configureRuntime({ compileCache: '' }), /compileCache is ""; expected true, false or the path/],
    ['setupRuntime: unknown', () => setupRuntime(wrong({ cuda: true })), /no option cuda\. It is called gpu here/],
    ['setupRuntime: a type', () => setupRuntime(wrong({ force: 'yes' })), /force is "yes"; expected true or false/],
    ['setupRuntime: no effect', () => setupRuntime({ libtensorflow: '/x', python: 'p' }), /python is "p", which has no effect with libtensorflow/],
    ['selectBackend: before the device', () => selectBackend('tpu' as never, wrong({ onNotce: () => {} })), /no option onNotce\. Did you mean onNotice/],
    ['jit: unknown', () => jit((x: tf.Tensor) => tf.abs(x), wrong({ capture: [] })), /jit\(\) has no option capture\. Did you mean captures/],
    ["jit: tf.function's name", () => jit((x: tf.Tensor) => tf.abs(x), wrong({ jit_compile: true })), /jit_compile\. It is called xla here/],
    ['jit: captures', () => jit((x: tf.Tensor) => tf.abs(x), wrong({ captures: [1] })), /captures is .*; expected a list of tensors/],
    ['Program: unknown', () => new Program(wrong({ nme: 'x' })), /new Program\(\) has no option nme\. Did you mean name/],
    ['Program: within', () => new Program(wrong({ graphCache: { folder: 'x', keys: 'y' } })), /graphCache has no option keys\. Did you mean key/],
    ['define: unknown', () => new Program().define('f', {}, () => ({}), wrong({ xlaa: true })), /no option xlaa\. Did you mean xla/],
    ['define: no effect', () => new Program().define('f', {}, () => ({}), { xla: false, compileOutlined: true }), /has no effect with xla: false/],
    ['define: an input', () => new Program().define('f', { x: wrong({ shape: [1], type: 'int32' }) }, () => ({})), /an input of Program.define\(\) has no option type/],
    ['defineLoop', () => new Program().defineLoop('l', wrong({ body: 'f', step: 3 })), /defineLoop\(\) has no option step\. Did you mean steps/],
    ['variable', () => new Program().variable('v', wrong({ shape: [1], dtype: 'float64' })), /dtype is "float64"; expected 'float32', 'bfloat16'/],
  ]; // prettier-ignore
  for (const [name, call, message] of cases)
    it(`are refused by name: ${name}`, async () => {
      const error = await errorOf(call);
      expect(error).to.be.instanceOf(ArgumentError);
      expect(error.message).to.match(message);
    });
});
