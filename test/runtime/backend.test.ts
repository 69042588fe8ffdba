import { expect } from 'chai';
import { cpuFeatures } from '../../src/runtime/cpu.js';
import { defaultFlags, expectsGpu, memoryLeft } from '../../src/runtime/environment.js';
import { cacheRoot } from '../../src/runtime/paths.js';
import { type GpuMemory, gpuNames } from '../../src/runtime/gpu.js';
import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';

const BACKEND = path.resolve('src/runtime/index.ts');

/** Runs lines of TypeScript in a process of its own, since a process loads one TensorFlow once. */
function run(code: string, env: Record<string, string> = {}) {
  const script = `import * as runtime from ${JSON.stringify(BACKEND)};\nimport * as tf from '@tensorflow/tfjs';\n${code}`;
  const file = path.resolve(`test/runtime/.script-${process.pid}-${Math.random().toString(36).slice(2)}.mts`);
  fs.writeFileSync(file, script);
  try {
    const result = spawnSync(process.execPath, ['--import', 'tsx', file], {
      encoding: 'utf8',
      env: { ...process.env, NODE_OPTIONS: '', ...env },
    });
    return { out: result.stdout.trim(), err: result.stderr.trim(), code: result.status };
  } finally {
    fs.rmSync(file);
  }
}

const SUM = 'console.log((await tf.add([1, 2], [3, 4]).data()).join());';
const selects = (device: string) => `const r = await runtime.selectBackend('${device}');
console.log(r.backend, r.device, r.tensorflow);
${SUM}`;

describe('selectBackend', function () {
  this.timeout(30000);
  let empty: string;
  before(() => (empty = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-test-'))));
  after(() => fs.rmSync(empty, { recursive: true }));

  it('kernels of our own: those that the processor can run, none when they are switched off', () => {
    const kernels = "runtime.loadTensorFlow('cpu'); console.log(runtime.deviceReport().cpu.kernels.join());";
    const features = cpuFeatures();
    const [avx2, avx512, vnni] = ['avx2', 'avx512f', 'avx512_vnni'].map((name) => features.includes(name));
    const expected = [
      ...(avx2 ? ['int4_product_avx2', 'dense_product_avx2', 'layer_step_avx2'] : []),
      ...(avx512 ? ['dense_product_avx512'] : []),
      ...(vnni ? ['int4_product_vnni'] : []),
      ...(avx512 && vnni ? ['layer_step_avx512'] : []),
    ];
    const { out, err, code } = run(kernels);
    expect(out.split(',').filter(Boolean)).to.have.members(expected);
    expect({ err, code }).to.deep.equal({ err: '', code: 0 });
    expect(run(kernels, { TFJS_MAMBA2_NATIVE: '0' })).to.deep.equal({ out: '', err: '', code: 0 });
  });

  it('large pages: what is held in large pieces and in use moves there, where the system has them', function () {
    const setting = '/sys/kernel/mm/transparent_hugepage/enabled';
    if (!fs.existsSync(setting) || /\[never\]/.test(fs.readFileSync(setting, 'utf8'))) this.skip();
    const { out, err } = run(`import * as fs from 'node:fs';
      const huge = () => Number(/AnonHugePages:\\s+(\\d+)/.exec(fs.readFileSync('/proc/self/smaps_rollup', 'utf8'))[1]) * 1024;
      runtime.loadTensorFlow('cpu');
      const before = huge();
      const held = new Float32Array(2 ** 24).fill(1.5);
      runtime.compactMemory();
      for (let i = 0; i < 100 && huge() - before < 2 ** 25; i++) await new Promise((go) => setTimeout(go, 50));
      console.log(huge() - before >= 2 ** 25, held.every((v) => v === 1.5));`);
    expect({ out, err }).to.deep.equal({ out: 'true true', err: '' });
  });

  it('auto: TensorFlow, with nothing on stderr', () => {
    expect(run(selects('auto'))).to.deep.equal({ out: 'tensorflow cpu 2.21.0\n4,6', err: '', code: 0 });
  });

  it('wasm, and js', () => {
    expect(run(selects('wasm'))).to.deep.equal({ out: 'wasm cpu null\n4,6', err: '', code: 0 });
    expect(run(selects('js')).out).to.equal('cpu cpu null\n4,6');
  });

  it('auto without a runtime: WebAssembly, and one line that says so', () => {
    const { out, err, code } = run(
      selects('auto') + selects('auto').replaceAll('const r', 'const q').replaceAll('r.', 'q.'),
      {
        XDG_CACHE_HOME: empty,
      },
    );
    expect(code).to.equal(0);
    expect(out).to.match(/^wasm cpu null\n4,6/);
    expect(err).to.match(/^tfjs-mamba2: .*WebAssembly.*slower.*npx mamba2 setup.*$/);
  });

  it('tensorflow without a runtime: an error that names the set-up', () => {
    const { err, code } = run(selects('tensorflow'), { XDG_CACHE_HOME: empty });
    expect(code).to.equal(1);
    expect(err).to.match(/DeviceError: The TensorFlow runtime is not set up. Run `npx mamba2 setup`/);
  });

  it('gpu that cannot be used: an error that names what is missing', function () {
    if (fs.existsSync('/dev/nvidia0')) this.skip();
    const { err, code } = run(selects('gpu'));
    expect(code).to.equal(1);
    expect(err).to.match(/DeviceError: device 'gpu' cannot be used: .*libcuda\.so\.1/);
  });

  it('refuses an unknown device', () => {
    expect(run(selects('tpu')).err).to.match(/ArgumentError: device: got "tpu", expected one of auto, cpu, gpu/);
  });

  it('refuses a TFJS_MAMBA2_RUNTIME that is no runtime', () => {
    const { err } = run(selects('auto'), { TFJS_MAMBA2_RUNTIME: empty });
    expect(err).to.include(`TFJS_MAMBA2_RUNTIME names ${empty}, which holds no TensorFlow runtime`);
  });

  it('does not hide what is no known notice, and restores stderr', () => {
    const { err } = run(`await runtime.selectBackend('auto'); process.stderr.write('after\\n');`);
    expect(err).to.equal('after');
  });
});

describe('configureRuntime', function () {
  this.timeout(30000);

  it('sets the environment before TensorFlow loads, and refuses changes after', () => {
    const own = '--xla_disable_hlo_passes=while-loop-invariant-code-motion';
    const { out, err, code } = run(
      `runtime.configureRuntime({ tf32: false, threads: 1, xlaFlags: ['--xla_cpu_prefer_vector_width=256', '--xla_cpu_enable_fast_math=false'], tfXlaFlags: ['--tf_xla_clustering_debug'] });
       runtime.configureRuntime({ xlaFlags: ['--xla_cpu_prefer_vector_width=512'] });
       await runtime.selectBackend('tensorflow');
       runtime.configureRuntime({ tf32: false });
       const e = process.env;
       console.log(JSON.stringify([e.NVIDIA_TF32_OVERRIDE, e.TF_NUM_INTRAOP_THREADS, e.TF_XLA_FLAGS, e.XLA_FLAGS]));
       try { runtime.configureRuntime({ tf32: true }); } catch (error) { console.log(error.name, error.data.changed.join()); }`,
      { XLA_FLAGS: '', TF_XLA_FLAGS: '--tf_xla_min_cluster_size=4', CUDA_VISIBLE_DEVICES: '-1' },
    );
    expect(code, err).to.equal(0);
    expect(out.split('\n')).to.deep.equal([
      `["0","1","--tf_xla_min_cluster_size=4 --tf_xla_clustering_debug","--xla_gpu_enable_triton_gemm=false --xla_cpu_prefer_vector_width=512 --xla_cpu_enable_fast_math=false ${own}"]`,
      'DeviceError NVIDIA_TF32_OVERRIDE',
    ]);
  });

  it('asks XLA for products in whole float32 where TF32 is switched off', () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-test-'));
    const code = (tf32: string): string => `
      import { jit } from ${JSON.stringify(path.resolve('src/jit/index.ts'))};
      runtime.configureRuntime({ tf32: ${tf32}, xlaFlags: ['--xla_dump_to=${dir}/${tf32}', '--xla_dump_hlo_as_text'] });
      await runtime.selectBackend('tensorflow');
      await jit((a, b) => tf.add(tf.matMul(a, b), tf.einsum('ij,jk->ik', a, b)))(tf.ones([3, 8]), tf.ones([8, 5]));`;
    try {
      for (const tf32 of ['false', 'true']) {
        expect(run(code(tf32)).code).to.equal(0);
        const texts = fs.readdirSync(path.join(dir, tf32)).filter((name) => name.includes('before_optimizations.txt'));
        const products = texts.flatMap((name) =>
          fs
            .readFileSync(path.join(dir, tf32, name), 'utf8')
            .split('\n')
            .filter((line) => / dot\(/.test(line)),
        );
        expect(products.length, 'products').to.equal(2);
        const whole = products.filter((line) => line.includes('operand_precision={highest,highest}'));
        expect(whole.length, `tf32: ${tf32}`).to.equal(tf32 === 'false' ? 2 : 0);
      }
    } finally {
      fs.rmSync(dir, { recursive: true });
    }
  });

  it('limits the memory of a GPU', () => {
    const code = `runtime.configureRuntime({ gpuMemoryLimit: 4096, allowGrowth: false, gpus: [1] });
      const e = process.env;
      console.log([e.TF_FORCE_GPU_ALLOW_GROWTH, e.CUDA_VISIBLE_DEVICES].join(' '));
      try { runtime.configureRuntime({ gpuMemoryLimit: 0.5 }); } catch (error) { console.log(error.name, error.message); }`;
    expect(run(code).out.split('\n')).to.deep.equal([
      'false 1',
      'ArgumentError configureRuntime(): gpuMemoryLimit is 0.5; expected a whole number of MiB from 1.',
    ]);
  });

  it('takes the memory of a GPU as it is asked for', () => {
    const code = `const allocator = () => JSON.stringify(process.env.TF_GPU_ALLOCATOR);
      for (const gpuAllocator of ['cuda_malloc_async', 'bfc']) { runtime.configureRuntime({ gpuAllocator }); console.log(allocator()); }
      try { runtime.configureRuntime({ gpuAllocator: 'cuda' }); } catch (error) { console.log(error.name, error.message); }`;
    expect(run(code).out.split('\n')).to.deep.equal([
      '"cuda_malloc_async"',
      '""', // TensorFlow's own, which it has no name for
      `ArgumentError configureRuntime(): gpuAllocator is "cuda"; expected 'bfc' or 'cuda_malloc_async'.`,
    ]);
  });

  it('leaves to others what a GPU has beyond the limit', () => {
    const card = (free: number): GpuMemory => ({ total: 80 * 2 ** 30, free: free * 2 ** 20 });
    expect(memoryLeft(4096, [card(79000)])).to.equal(74904);
    expect(memoryLeft(4096, [card(79000), card(20000)])).to.equal(15904);
    expect(memoryLeft(4096, [card(3000)]), 'less free than the limit').to.equal(null);
    expect(memoryLeft(4096, []), 'no GPU').to.equal(null);
  });

  it('leaves the weights of a loop in it, and keeps compiled programs by the flags that made them', function () {
    this.timeout(60_000);
    const cache = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-test-')), 'tfjs-mamba2');
    fs.mkdirSync(cache);
    fs.symlinkSync(path.join(cacheRoot(), 'runtime'), path.join(cache, 'runtime'));
    const code = `
      process.env.CUDA_VISIBLE_DEVICES = '-1';
      runtime.configureRuntime({ compileCache: true });
      await runtime.selectBackend('tensorflow');
      runtime.configureRuntime({ compileCache: true });
      for (const compileCache of [false, 'another'])
        try { runtime.configureRuntime({ compileCache }); } catch (error) { console.error(error.name, error.data.changed.join()); }
      console.log(JSON.stringify([process.env.XLA_FLAGS, process.env.TF_XLA_FLAGS]));`;
    const flagsAfter = (given: string): [string, string] => {
      const { out, err } = run(code, { XLA_FLAGS: given, TF_XLA_FLAGS: '', XDG_CACHE_HOME: path.dirname(cache) });
      expect(err).to.equal('DeviceError compileCache\nDeviceError compileCache');
      return JSON.parse(out) as [string, string];
    };
    try {
      const plain = flagsAfter('');
      const wide = flagsAfter('--xla_cpu_prefer_vector_width=512');
      expect(plain[0]).to.equal('--xla_disable_hlo_passes=while-loop-invariant-code-motion');
      expect(wide[0]).to.equal(`--xla_cpu_prefer_vector_width=512 ${plain[0]}`);
      expect(plain[1]).to.match(/^--tf_xla_persistent_cache_directory=\S+$/);
      expect(flagsAfter('--xla_disable_hlo_passes=dce')[0]).to.equal('--xla_disable_hlo_passes=dce');
      expect(flagsAfter('')).not.to.deep.equal(plain); // a folder of each process
      expect(fs.readdirSync(path.join(cache, 'xla')), 'one folder for each set of flags').to.have.length(3);
    } finally {
      fs.rmSync(path.dirname(cache), { recursive: true });
    }
  });

  it('does not hand its own folder of compiled programs to processes that it starts', () => {
    const flag = '--tf_xla_persistent_cache_directory=/tmp/tfjs-mamba2-programs-1-abcdef';
    const code = `runtime.loadTensorFlow('cpu'); console.log(process.env.TF_XLA_FLAGS);`;
    const { out } = run(code, { TF_XLA_FLAGS: `${flag} --tf_xla_min_cluster_size=4` });
    expect(out).to.equal('--tf_xla_min_cluster_size=4');
  });

  it('lets the libraries choose the products of a GPU, unless somebody else does', () => {
    const products = '--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false';
    const parallel =
      '--xla_gpu_enable_llvm_module_compilation_parallelism=true --xla_gpu_force_compilation_parallelism=16';
    expect(defaultFlags('', true)).to.equal(`${products} ${parallel}`);
    expect(defaultFlags('--a=1 --xla_gpu_enable_triton_gemm=false', true)).to.equal(
      `--a=1 --xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0 ${parallel}`,
    );
    for (const chosen of ['--xla_gpu_autotune_level=4', '--xla_gpu_enable_triton_gemm=true'])
      expect(defaultFlags(chosen, true)).to.equal(`${chosen} ${parallel}`);
    const one = '--xla_gpu_force_compilation_parallelism=1';
    expect(defaultFlags(one, true), 'compiled as somebody chose').to.equal(`${one} ${products}`);
    expect(defaultFlags('', false)).not.to.include('gpu');
  });

  it('sets for a GPU what is for GPUs, and not where only the machine has one', () => {
    const [there, none] = [() => true, () => false];
    expect(expectsGpu('gpu', undefined, there)).to.equal(true);
    expect(expectsGpu(undefined, '0,1', there)).to.equal(true);
    expect(expectsGpu('cpu', undefined, there), 'a library for CPUs').to.equal(false);
    expect(expectsGpu('gpu', undefined, none), 'no card').to.equal(false);
    for (const hidden of ['-1', '']) expect(expectsGpu('gpu', hidden, there), 'hidden').to.equal(false);
  });

  it('knows how many multiprocessors a GPU has, and of none nothing', () => {
    const count = (device: string): number =>
      Number(run(`runtime.loadTensorFlow('${device}'); console.log(runtime.multiprocessors());`).out);
    expect(count('cpu')).to.equal(0);
    if (gpuNames().length > 0) expect(count('auto')).to.be.greaterThan(0);
    else expect(count('auto')).to.equal(0);
  });

  it('takes the least of what several GPUs have, and nothing for granted that a driver does not say', () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'driver-'));
    try {
      const asked = (body: string): unknown => {
        const source = path.join(dir, 'cuda.cc');
        fs.writeFileSync(source, `extern "C" { int cuInit(unsigned) { return 0; } ${body} }`);
        execFileSync('g++', ['-shared', '-fPIC', '-o', path.join(dir, 'libcuda.so.1'), source]);
        // what was asked before there was an addon is asked again
        const code = `runtime.multiprocessors(); runtime.loadTensorFlow('cpu'); console.log(JSON.stringify([runtime.multiprocessors(), runtime.computeCapability()]));`;
        return JSON.parse(run(code, { LD_LIBRARY_PATH: dir }).out);
      };
      const devices = `int cuDeviceGetCount(int* n) { *n = 2; return 0; } int cuDeviceGet(int* d, int i) { *d = i; return 0; }`;
      // an A100 (108 multiprocessors, 8.0) and a T4 (40, 7.5)
      const attribute = `int cuDeviceGetAttribute(int* v, int a, int d) { *v = a == 16 ? (d ? 40 : 108) : a == 75 ? (d ? 7 : 8) : d ? 5 : 0; return 0; }`;
      expect(asked(devices + attribute)).to.deep.equal([40, 75]);
      const failing = `int cuDeviceGetAttribute(int* v, int, int d) { *v = 8; return d; }`;
      expect(asked(devices + failing)).to.deep.equal([0, 0]);
      expect(asked(devices)).to.deep.equal([0, 0]);
    } finally {
      fs.rmSync(dir, { recursive: true, force: true });
    }
  });

  it('prefers wide vectors where the processor has them, unless somebody chose a width', () => {
    const code = `runtime.preferWideVectors(); console.log(process.env.XLA_FLAGS);`;
    const wide = cpuFeatures().includes('avx512f') ? ' --xla_cpu_prefer_vector_width=512' : '';
    expect(run(code, { XLA_FLAGS: '--xla_cpu_enable_fast_math=false' }).out).to.equal(
      `--xla_cpu_enable_fast_math=false${wide}`,
    );
    const chosen = '--xla_cpu_prefer_vector_width=128';
    expect(run(code, { XLA_FLAGS: chosen }).out).to.equal(chosen);
    const late = `await runtime.selectBackend('tensorflow'); runtime.preferWideVectors(); console.log(process.env.XLA_FLAGS ?? '');`;
    expect(run(late, { XLA_FLAGS: '' }).out).not.to.contain('vector_width');
  });
});
