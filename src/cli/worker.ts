/** `mamba2 worker`: lends this machine's devices to a process elsewhere. */
import { type Command, InvalidArgumentError } from 'commander';
import type { DeviceLike } from '../base/devices.js';
import { onStopSignal } from '../base/stop_signals.js';
import { type Address, addressOf, textOf } from '../runtime/cluster/address.js';
import { deviceFrom } from './options.js';
import { note } from './output.js';

interface Options {
  listen: Address;
  device: DeviceLike;
}

function listenFrom(text: string): Address {
  try {
    return addressOf(text, '--listen');
  } catch {
    throw new InvalidArgumentError('Expected HOST:PORT, such as 127.0.0.1:7700, with a port from 1 to 65535.');
  }
}

export function registerWorker(program: Command): void {
  program
    .command('worker')
    .description('lend this machine to a training run elsewhere (finetune --workers); there is no authentication')
    .option(
      '--listen <address>',
      'HOST:PORT, or PORT of this machine alone; whoever reaches it may run anything here',
      listenFrom,
      { host: '127.0.0.1', port: 7700 },
    )
    .option('--device <device>', 'what to lend: auto, cpu, gpu or the number of a GPU', deviceFrom, 'auto')
    .action(work);
}

async function work({ listen, device }: Options): Promise<void> {
  const [{ selectBackend }, { startWorker }] = await Promise.all([
    import('../runtime/index.js'),
    import('../runtime/cluster/worker.js'),
  ]);
  const report = await selectBackend(device, { onNotice: () => {} });
  if (report.backend !== 'tensorflow') {
    const { DeviceError } = await import('../base/errors.js');
    throw new DeviceError('A worker needs TensorFlow, and it is not set up here. Run `npx mamba2 setup`.', {});
  }
  const stopped = new Promise<string>((resolve) => onStopSignal(resolve));
  const alive = setInterval(() => undefined, 2 ** 30);
  try {
    await startWorker(listen);
    note(`mamba2: a worker listens at ${textOf(listen)}, on the ${report.device.toUpperCase()}.`);
    note(
      'mamba2: There is no authentication: whoever reaches this address may run anything as this user. ' +
        (isLocal(listen.host) ? 'It is of this machine alone.' : 'Keep it in a private network (docs/distributed.md).'),
    );
    note(`mamba2: ${await stopped}: the worker ends`);
  } finally {
    clearInterval(alive);
  }
}

function isLocal(host: string): boolean {
  return host === '::1' || host === 'localhost' || host.startsWith('127.');
}
