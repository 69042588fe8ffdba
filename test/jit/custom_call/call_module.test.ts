import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { moduleText } from '../../../src/jit/custom_call/call_module.js';
import { castFloat32, castTo, Program } from '../../../src/jit/index.js';
import { runTritonAll } from '../../../src/jit/custom_call/triton.js';
import { useBackend } from '../../support/backends.js';

describe('calls of XLA by name', () => {
  before(() => useBackend('tensorflow'));

  it('say of a result that it takes the memory of an input', () => {
    const state = { shape: [2, 3], dtype: 'float32' } as const;
    const codes = { shape: [4], dtype: 'uint8' } as const;
    const both = { target: 'f', config: '{}', results: [codes, state], aliases: new Map([[1, 0]]) };
    const text = moduleText(both, [state, codes]);
    expect(text).to.contain('output_tuple_indices = [1], operand_index = 0,');
    expect(text).to.contain('-> (tensor<4xui8>, tensor<2x3xf32>)');
    // a result that is the only one is no tuple
    const alone = { target: 'f', config: '{}', results: [state], aliases: new Map([[0, 1]]) };
    expect(moduleText(alone, [codes, state])).to.contain('output_tuple_indices = [], operand_index = 1,');
  });

  it('are text that TensorFlow reads, down to the kernel that a CPU does not have', async () => {
    const kernel = { name: 'k', text: 'module { "quoted" }\n', grid: 3, warps: 2 };
    for (const results of [1, 3]) {
      const program = new Program();
      const inputs = { x: { shape: [2, 3], dtype: 'float32' }, n: { shape: [], dtype: 'int32' } } as const;
      program.define('f', inputs, ({ x, n }) => {
        const dtypes = (['float32', 'int32', 'bfloat16'] as const).slice(0, results);
        const shapes = [[2, 3], [], [4]].slice(0, results);
        const narrow = castTo(tf.slice(tf.reshape(x!, [6]), [0], [4]), 'bfloat16');
        const made = runTritonAll(kernel, [n!, x!, narrow], shapes, dtypes, new Map([[0, 1]]));
        return { outputs: Object.fromEntries(made.map((y, i) => [`y${i}`, i === 2 ? castFloat32(y) : y])) };
      });
      let message = '';
      try {
        await program.compile();
        program.callSync('f', { x: new Float32Array(6), n: Int32Array.of(1) });
      } catch (error) {
        message = String(error);
      }
      program.dispose();
      expect(message, `${results} results`).to.contain('__gpu$xla.gpu.triton');
    }
  });
});
