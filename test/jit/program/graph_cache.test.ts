import { expect } from 'chai';
import { graphFolder } from '../../../src/jit/program/graph_cache.js';
import { nodeBackend } from '../../../src/runtime/binding.js';
import { useBackend } from '../../support/backends.js';

describe('kept graphs', () => {
  before(() => useBackend('tensorflow'));

  it('are apart by all that functions are traced differently for', () => {
    const backend = nodeBackend();
    const [gpu, triton] = [backend.isUsingGpuDevice, process.env['TFJS_MAMBA2_TRITON']];
    const spec = { shape: [2], dtype: 'float32' as const };
    const folder = (key = 'k', shape = spec, functions = ['f']): string =>
      graphFolder({ folder: 'graphs', key }, new Map([['x', shape]]), functions);
    const forms = (): string[] => {
      const all: string[] = [];
      for (const onGpu of [false, true])
        for (const kernels of ['1', '0']) {
          backend.isUsingGpuDevice = onGpu;
          process.env['TFJS_MAMBA2_TRITON'] = kernels;
          all.push(folder());
        }
      return all;
    };
    try {
      const [cpu, same, withKernels, without] = forms();
      expect(cpu).to.equal(same); // on a CPU the switch changes nothing
      expect(new Set([cpu, withKernels, without]).size).to.equal(3);
      expect(forms()).to.deep.equal([cpu, same, withKernels, without]);
    } finally {
      backend.isUsingGpuDevice = gpu;
      if (triton === undefined) delete process.env['TFJS_MAMBA2_TRITON'];
      else process.env['TFJS_MAMBA2_TRITON'] = triton;
    }
    const others = [folder('other'), folder('k', { shape: [3], dtype: 'float32' }), folder('k', spec, ['f', 'g'])];
    expect(new Set([folder(), ...others]).size).to.equal(4);
  });
});
