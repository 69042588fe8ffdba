/** `mamba2 setup`: makes the native TensorFlow runtime ready. */
import type { Command } from 'commander';
import { note, write } from './output.js';

interface Options {
  gpu?: boolean;
  libtensorflow?: string;
  force?: boolean;
  python: string;
}

export function registerSetup(program: Command): void {
  program
    .command('setup')
    .description('fetch TensorFlow and build the addon for it, once for all projects of this user')
    .option('--gpu', 'the TensorFlow that runs on NVIDIA GPUs too, and CUDA 12 unless it is installed')
    .option('--libtensorflow <dir>', 'use the TensorFlow libraries in this folder instead of downloading them')
    .option('--python <program>', 'the Python 3 whose pip downloads TensorFlow (default: python3)')
    .option('--force', 'set up anew even if it is done')
    .action(async (options: Options) => {
      const { setupRuntime } = await import('../runtime/setup.js');
      const start = Date.now();
      const result = await setupRuntime({ ...options, onStep: (line) => note(`setup: ${line}`) });
      const seconds = ((Date.now() - start) / 1000).toFixed(0);
      const how = result.built ? `set up in ${seconds} s` : 'ready';
      await write(`TensorFlow ${result.tensorflow} (${result.library}) is ${how}: ${result.dir}\n`);
    });
}
