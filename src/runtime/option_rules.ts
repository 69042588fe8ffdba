/** What the options of this room may be. */
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';
import type { SelectOptions } from './backend.js';
import type { RuntimeOptions } from './environment.js';
import type { SetupOptions } from './setup.js';

const FLAGS = kinds.named(
  'a list of flags, each --name or --name=value without spaces',
  kinds.listOf(kinds.named('', (flag) => typeof flag === 'string' && /^--[\w-]+(=\S*)?$/.test(flag))),
);

const NO_GPUS = {
  when: ({ gpus }: Readonly<RuntimeOptions>) => gpus?.length === 0,
  why: 'which has no effect without GPUs (gpus is [])',
};

export const RUNTIME_TABLE = new OptionTable<RuntimeOptions>(
  'configureRuntime()',
  {
    logLevel: { kind: kinds.oneOf(0, 1, 2, 3) },
    xlaFlags: { kind: FLAGS },
    tfXlaFlags: { kind: FLAGS },
    compileCache: {
      kind: kinds.named('true, false or the path of a folder', kinds.either(kinds.boolean, kinds.text)),
    },
    tf32: { kind: kinds.boolean },
    allowGrowth: { kind: kinds.boolean },
    gpuAllocator: { kind: kinds.oneOf('bfc', 'cuda_malloc_async') },
    gpuMemoryLimit: { kind: kinds.named('a whole number of MiB from 1', kinds.integer({ min: 1 })) },
    threads: { kind: kinds.integer({ min: 1 }) },
    gpus: { kind: kinds.listOf(kinds.integer({ min: 0 }), 'numbers of GPUs, from 0') },
  },
  {
    others: {
      // TensorFlow in Python
      memory_growth: 'allowGrowth',
      memory_limit: 'gpuMemoryLimit',
      per_process_gpu_memory_fraction: 'gpuMemoryLimit',
      visible_devices: 'gpus',
      intra_op_parallelism_threads: 'threads',
      enable_tensor_float_32_execution: 'tf32',
      // torch, and what else caches are called
      allow_tf32: 'tf32',
      num_threads: 'threads',
      cache_dir: 'compileCache',
      device: { why: 'the device is chosen by selectBackend(), pipeline() and from_pretrained()' },
    },
    clashes: [
      { option: 'gpuMemoryLimit', ...NO_GPUS },
      { option: 'allowGrowth', ...NO_GPUS },
      { option: 'gpuAllocator', ...NO_GPUS },
      { option: 'tf32', ...NO_GPUS },
    ],
  },
);

export const SETUP_TABLE = new OptionTable<SetupOptions>(
  'setupRuntime()',
  {
    gpu: { kind: kinds.boolean },
    libtensorflow: { kind: kinds.named('the path of a folder', kinds.text) },
    force: { kind: kinds.boolean },
    python: { kind: kinds.named('the name of a program', kinds.text) },
    onStep: { kind: kinds.func },
    showProgress: { kind: kinds.boolean },
  },
  {
    others: { cuda: 'gpu', onProgress: 'onStep', reinstall: 'force' },
    clashes: (['python', 'showProgress'] as const).map((option) => ({
      option,
      when: ({ libtensorflow }: Readonly<SetupOptions>) => libtensorflow !== undefined,
      why: 'which has no effect with libtensorflow: nothing is fetched with pip',
    })),
  },
);

export const SELECT_TABLE = new OptionTable<SelectOptions>(
  'selectBackend()',
  { onNotice: { kind: kinds.func } },
  { others: { onWarning: 'onNotice', device: { why: 'the device is the first argument' } } },
);
