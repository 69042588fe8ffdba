/** A worker: TensorFlow's own server (gRPC), in which another process runs parts of its graphs. It knows nothing of models. */
import { lookup } from 'node:dns/promises';
import * as net from 'node:net';
import { DeviceError } from '../../base/errors.js';
import { MessageWriter } from '../../base/proto.js';
import { serveTensorFlow } from '../native_session.js';
import { NATIVE_VERSION, TENSORFLOW_VERSION } from '../paths.js';
import { packageVersion } from '../version.js';
import { type Address, textOf } from './address.js';

/** What a worker is of, in the name of its job, where whoever asks it for its devices reads it. */
export function workerJob(): string {
  const digits = (version: string): string => version.replace(/[^A-Za-z0-9]/g, '_');
  return `mamba2_${digits(packageVersion())}_native_${NATIVE_VERSION}_tensorflow_${digits(TENSORFLOW_VERSION)}`;
}

/** A ServerDef of a cluster of one: who drives workers tells each of the others. */
function serverDef(address: Address): Uint8Array {
  const job = workerJob();
  const task = new MessageWriter().int(1, 0).bytes(2, textOf(address));
  const cluster = new MessageWriter().bytes(1, new MessageWriter().bytes(1, job).bytes(2, task));
  return new MessageWriter().bytes(1, cluster).bytes(2, job).int(3, 0).bytes(5, 'grpc').finish();
}

/** gRPC would share a port with whoever listens there already. @throws DeviceError where the address cannot be listened at */
async function tryAddress(address: Address, ip: string): Promise<void> {
  const server = net.createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host: ip, port: address.port, exclusive: true }, resolve);
    });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why: Record<string, string> = {
      EADDRINUSE: 'another program listens there; take another port',
      EADDRNOTAVAIL: 'it is no address of this machine',
      EACCES: 'the system does not allow it; ports from 1024 on are for everybody',
    };
    throw new DeviceError(
      `A worker cannot listen at ${textOf(address)}: ${why[code ?? ''] ?? message}.`,
      { address: textOf(address), code },
      { cause: error },
    );
  }
  await new Promise((resolve) => server.close(resolve));
}

/**
 * Starts a worker, which lives as long as this process. TensorFlow must be loaded.
 * @throws DeviceError where it cannot listen there, or the host's name is unknown
 */
export async function startWorker(address: Address): Promise<void> {
  let ip: string;
  try {
    ip = (await lookup(address.host)).address;
  } catch (error) {
    throw new DeviceError(`A worker cannot listen at ${textOf(address)}: the name ${address.host} is unknown.`, {}, { cause: error }); // prettier-ignore
  }
  await tryAddress(address, ip);
  try {
    serveTensorFlow(serverDef(address), ip, address.port);
  } catch (error) {
    throw new DeviceError(`A worker cannot listen at ${textOf(address)}: ${(error as Error).message}.`, {}, { cause: error }); // prettier-ignore
  }
}
