/** `mamba2 env`: what models run on here. */
import type { Command } from 'commander';
import type { DeviceLike } from '../base/devices.js';
import type { GpuCard } from '../runtime/cards.js';
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
      // asked here alone: nvidia-smi takes a second on a machine with many GPUs
      const { gpuCards, linkWords } = await import('../runtime/cards.js');
      const cards = gpuCards();
      const whole = { ...report, gpu: { ...report.gpu, cards } };
      const lines = cards.map((card): [string, string] => [`GPU ${card.index}`, cardText(card, linkWords)]);
      await write(options.json ? `${JSON.stringify(whole, null, 2)}\n` : table([...rows(report), ...lines]));
    });
}

function rows(report: DeviceReport): [string, string][] {
  const { cpu, gpu } = report;
  const others = ['Bun', 'Deno'].filter((name) => process.versions[name.toLowerCase()] !== undefined);
  const setUp = report.runtime ? 'not in use' : 'not set up; run `npx mamba2 setup`';
  return [
    ['tfjs-mamba2', report.package],
    ...others.map((name): [string, string] => [name, process.versions[name.toLowerCase()]!]),
    ['Node.js', `${report.node}${others.length > 0 ? ', as it says it is' : ''} (${report.platform})`],
    ['TensorFlow.js', report.tfjs],
    ['TensorFlow', report.tensorflow ? `${report.tensorflow} (${report.library ?? 'loaded by the program'})` : setUp],
    ['Runtime', report.runtime ?? 'none'],
    ['Backend', `${report.backend}, on the ${report.device.toUpperCase()}`],
    ['CPU', `${cpu.model}, ${cpu.cores} cores: ${cpu.features.join(' ') || 'features unknown'}`],
    ['Kernels', cpu.kernels.join(' ') || 'none of this package on the CPU'],
    ['GPU', gpu.used ? gpu.names.join(', ') || 'in use' : `not used: ${gpu.reason}`],
  ];
}

/** `NVIDIA H200, 139.2 of 140.4 GiB free; to GPU 1 by NVLink (18 links)` */
function cardText({ name, memory, links }: GpuCard, linkWords: (kind: string) => string): string {
  const gib = (bytes: number): string => (bytes / 2 ** 30).toFixed(1);
  const room = memory ? `${gib(memory.free)} of ${gib(memory.total)} GiB free` : 'memory unknown';
  const reached = links.map(({ to, kind }) => `; to GPU ${to} by ${linkWords(kind)}`);
  return `${name}, ${room}${reached.join('')}`;
}
