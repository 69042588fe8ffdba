/** Products of stored matrices with long vectors, in compiled functions for a CPU. */
import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import type * as tf from '@tensorflow/tfjs';
import { encodeFloat32 } from '../../../src/base/stored_dtypes.js';
import { matMulStored, Program } from '../../../src/jit/index.js';
import { useBackend } from '../../support/backends.js';

describe('matMulStored with long vectors', () => {
  before(() => useBackend('tensorflow'));

  it('sums them in parts, of whatever length', async () => {
    const n = 67;
    for (const dtype of ['bfloat16', 'float32'] as const)
      for (const k of [4095, 4096, 5000, 8192, 12_345]) {
        const weight = (row: number, column: number): number => (((row * 31 + column * 17) % 13) - 6) / 8;
        const input = (row: number, column: number): number => (((row * 7 + column * 5) % 11) - 5) / 4;
        const values = Float32Array.from({ length: n * k }, (_, i) => weight(Math.floor(i / k), i % k));
        const program = new Program();
        const bytes = dtype === 'float32' ? values : new Uint16Array(encodeFloat32(values, 'BF16').buffer);
        program.variable('w', { shape: [n, k], dtype, init: () => bytes });
        for (const m of [1, 3])
          program.define(`f${m}`, { x: { shape: [m, k], dtype: 'float32' } }, ({ x }, { w }) => ({
            outputs: { y: matMulStored(x as tf.Tensor2D, w!) },
          }));
        await program.compile();
        for (const m of [1, 3]) {
          const x = Float32Array.from({ length: m * k }, (_, i) => input(Math.floor(i / k), i % k));
          const { y } = program.callSync(`f${m}`, { x });
          const wanted = Float32Array.from({ length: m * n }, (_, i) => {
            let sum = 0;
            for (let c = 0; c < k; c++) sum += input(Math.floor(i / n), c) * weight(i % n, c);
            return sum; // all terms are multiples of 1/32 and small: the sum is exact in any order
          });
          expect([...y!], `${m} rows of ${k}, ${dtype}`).to.deep.equal([...wanted]);
        }
        program.dispose();
      }
  });

  it('never writes the converted matrix to memory', () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-test-'));
    const at = (file: string): string => JSON.stringify(path.resolve(file));
    const code = `
      import { matMulStored, Program } from ${at('src/jit/index.ts')};
      import { loadTensorFlow } from ${at('src/runtime/index.ts')};
      import * as tf from '@tensorflow/tfjs';
      loadTensorFlow();
      await tf.setBackend('tensorflow');
      const program = new Program();
      for (const [k, dtype] of [[4096, 'bfloat16'], [5120, 'bfloat16'], [8192, 'bfloat16'], [5120, 'float32']]) {
        program.variable(dtype + k, { shape: [333, k], dtype });
        program.define('f' + dtype + k, { x: { shape: [1, k], dtype: 'float32' } }, ({ x }, vars) => ({
          outputs: { y: tf.add(matMulStored(tf.mul(x, 2), vars[dtype + k]), 1) },
        }));
      }
      await program.compile();
      program.callSync('fbfloat164096', { x: new Float32Array(4096) });
      program.callSync('fbfloat165120', { x: new Float32Array(5120) });
      program.callSync('fbfloat168192', { x: new Float32Array(8192) });
      program.callSync('ffloat325120', { x: new Float32Array(5120) });`;
    try {
      execFileSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
        env: { ...process.env, TF_XLA_FLAGS: '', XLA_FLAGS: `--xla_dump_to=${dir} --xla_dump_hlo_as_text` },
        stdio: 'pipe',
      });
      const texts = fs
        .readdirSync(dir)
        .filter((name) => name.endsWith('cpu_after_optimizations-buffer-assignment.txt'));
      expect(texts.length).to.equal(4);
      for (const name of texts) {
        const text = fs.readFileSync(path.join(dir, name), 'utf8');
        const sizes = [...text.matchAll(/^allocation \d+: size (\d+)(?!.*(?:parameter|constant))/gm)].map((m) =>
          Number(m[1]),
        );
        expect(sizes.length, text).to.be.above(0);
        expect(Math.max(...sizes), `${name}: bytes beside the arguments`).to.be.below(333 * 4096);
      }
    } finally {
      fs.rmSync(dir, { recursive: true });
    }
  });
});
