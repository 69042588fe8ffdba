/** `mamba2 env`: what models run on here. */
import type { Command } from 'commander';
import type { DeviceLike } from '../base/devices.js';
import type { DeviceReport } from '../runtime/index.js';
import { deviceFrom } from './options.js';
import { table, write } from './output.js';

interface Options {
  device: DeviceLike;
  json?: boolean;
}

export function registerEnv(program: Command): void {
  program
    .command('env')
    .description('show versions and the device in use')
    .option('--device <device>', 'the device to ask for', deviceFrom, 'auto')
    .option('--json', 'print JSON')
    .action(async (options: Options) => {
      const { selectBackend } = await import('../runtime/index.js');
      const report = await selectBackend(options.device, { onNotice: () => {} });
      await write(options.json ? `${JSON.stringify(report, null, 2)}\n` : table(rows(report)));
    });
}

function rows(report: DeviceReport): [string, string][] {
  const { cpu, gpu } = report;
  const setUp = report.runtime ? 'not in use' : 'not set up; run `npx mamba2 setup`';
  return [
    ['tfjs-mamba2', report.package],
    ['Node.js', `${report.node} (${report.platform})`],
    ['TensorFlow.js', report.tfjs],
    ['TensorFlow', report.tensorflow ? `${report.tensorflow} (${report.library ?? 'loaded by the program'})` : setUp],
    ['Runtime', report.runtime ?? 'none'],
    ['Backend', `${report.backend}, on the ${report.device.toUpperCase()}`],
    ['CPU', `${cpu.model}, ${cpu.cores} cores: ${cpu.features.join(' ') || 'features unknown'}`],
    ['Kernels', cpu.kernels.join(' ') || 'none of this package on the CPU'],
    ['GPU', gpu.used ? gpu.names.join(', ') || 'in use' : `not used: ${gpu.reason}`],
  ];
}
