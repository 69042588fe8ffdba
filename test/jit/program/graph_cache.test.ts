import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { graphFolder, keepGraph, keptGraph } from '../../../src/jit/program/graph_cache.js';
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

  it('have their parts apart, and none where one of them was changed', () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kept-graph-'));
    const kept = path.join(folder, 'one');
    const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
    const signatures = { f: { inputs: {}, outputs: {}, assigned: [] }, g: { inputs: {}, outputs: {}, assigned: [] } };
    try {
      keepGraph(kept, { graph: bytes(1, 2, 3), parts: { g: bytes(4), f: bytes(5, 6) }, signatures });
      const { graph, parts } = keptGraph(kept, ['f', 'g'])!;
      expect([...graph]).eql([1, 2, 3]);
      expect(Object.entries(parts).map(([name, part]) => [name, ...part])).eql([
        ['g', 4],
        ['f', 5, 6],
      ]);
      expect(keptGraph(kept, ['f', 'h'])).equal(null);
      const file = path.join(kept, 'signatures.json');
      const text = fs.readFileSync(file, 'utf8');
      fs.writeFileSync(file, text.replace('["g",1],["f",2]', '["g",2],["f",1]'));
      expect(fs.readFileSync(file, 'utf8')).not.equal(text);
      expect(keptGraph(kept, ['f', 'g'])).equal(null);
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  });
});
