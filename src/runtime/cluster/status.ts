/** Asking a worker how it is: one call of TensorFlow's own service (WorkerService.GetStatus), over HTTP/2 as gRPC has it. */
import * as http2 from 'node:http2';
import { DeviceError } from '../../base/errors.js';
import { type Address, textOf } from './address.js';
import { workerJob } from './worker.js';

/** A device of a worker. */
export interface WorkerDevice {
  /** 'CPU', 'GPU'. */
  type: string;
  /** Number among those of the type. */
  index: number;
  memory: number;
  /** Another number each time the worker is started. */
  incarnation: bigint;
}

export interface WorkerStatus {
  /** See workerJob(). */
  job: string;
  devices: readonly WorkerDevice[];
}

/** Fields of a message of protocol buffers: varints and fixed numbers as bigints, all else as bytes. */
function* fieldsOf(message: Uint8Array): Generator<readonly [field: number, value: bigint | Uint8Array]> {
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; at < message.length; shift += 7n) {
      const byte = message[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw new Error('the answer is cut');
  };
  while (at < message.length) {
    const tag = Number(varint());
    const kind = tag & 7;
    if (kind === 0) {
      yield [tag >> 3, varint()];
      continue;
    }
    const size = kind === 1 ? 8 : kind === 5 ? 4 : Number(varint());
    if (at + size > message.length) throw new Error('the answer is cut');
    const bytes = message.subarray(at, at + size);
    at += size;
    const view = new DataView(bytes.buffer, bytes.byteOffset, size);
    if (kind === 1) yield [tag >> 3, view.getBigUint64(0, true)];
    else if (kind === 5) yield [tag >> 3, BigInt(view.getUint32(0, true))];
    else yield [tag >> 3, bytes];
  }
}

/** @param message a GetStatusResponse */
function statusOf(message: Uint8Array): WorkerStatus {
  let job = '';
  const devices: WorkerDevice[] = [];
  for (const [field, value] of fieldsOf(message)) {
    if (field !== 1 || typeof value === 'bigint') continue;
    const device = { type: '', index: 0, memory: 0, incarnation: 0n };
    for (const [of, is] of fieldsOf(value)) {
      if (of === 1) {
        const [, name, index] = /^\/job:([^/]+)\/.*:(\d+)$/.exec(new TextDecoder().decode(is as Uint8Array)) ?? [];
        [job, device.index] = [name ?? job, Number(index)];
      } else if (of === 2) device.type = new TextDecoder().decode(is as Uint8Array);
      else if (of === 4) device.memory = Number(is);
      else if (of === 6) device.incarnation = is as bigint;
    }
    devices.push(device);
  }
  return { job, devices };
}

/** @param limit milliseconds @throws Error saying why there is no answer */
export function askWorker(address: Address, limit: number): Promise<WorkerStatus> {
  return new Promise((resolve, reject) => {
    const session = http2.connect(`http://${textOf(address)}`);
    let done = false;
    const end = (act: () => void): void => {
      if (done) return;
      done = true;
      clearTimeout(timer);
      session.destroy();
      act();
    };
    const fail = (error: Error): void => {
      const { code, message } = (error.cause ?? error) as NodeJS.ErrnoException;
      end(() => reject(new Error(code === 'ECONNREFUSED' ? 'nobody listens there' : message)));
    };
    const timer = setTimeout(() => fail(new Error(`no answer within ${limit / 1000} s`)), limit);
    session.on('error', fail);
    session.on('close', () => fail(new Error('it closed the connection')));
    const call = session.request({
      ':method': 'POST',
      ':path': '/tensorflow.WorkerService/GetStatus',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const parts: Buffer[] = [];
    call.on('error', fail);
    call.on('data', (part: Buffer) => parts.push(part));
    call.on('end', () => {
      // a byte for compression and four for the length come before the message
      const answer = Buffer.concat(parts).subarray(5);
      try {
        const status = statusOf(answer);
        if (status.devices.length === 0) throw new Error('what listens there is no worker');
        end(() => resolve(status));
      } catch (error) {
        fail(error as Error);
      }
    });
    call.end(Buffer.alloc(5));
  });
}

/** @throws DeviceError where the worker is of another version of this package, or no worker of it */
export function checkVersion(address: Address, { job }: WorkerStatus): void {
  if (job === workerJob()) return;
  const read = (name: string): string => {
    const [, own, native, tensorflow] = /^mamba2_(.+)_native_(\d+)_tensorflow_(.+)$/.exec(name) ?? [];
    if (own === undefined)
      return `a TensorFlow server that is no worker of this package (${name || 'it names no job'})`;
    const dots = (version: string): string => version.replace(/_/g, '.');
    return `tfjs-mamba2 ${dots(own)} (addons ${native}, TensorFlow ${dots(tensorflow!)})`;
  };
  throw new DeviceError(
    `The worker ${textOf(address)} is ${read(job)}, and this process ${read(workerJob())}: both must be of one version. ` +
      'Install the same package there, run `mamba2 setup`, and start the worker again.',
    { address: textOf(address), got: job, expected: workerJob() },
  );
}
