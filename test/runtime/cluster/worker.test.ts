/** `mamba2 worker`: where it listens, what it says of itself, how it ends; and what is said of those that are of no use. */
import * as net from 'node:net';
import * as os from 'node:os';
import { once } from 'node:events';
import { expect } from 'chai';
import { addressOf, textOf } from '../../../src/runtime/cluster/address.js';
import { askWorker, checkVersion } from '../../../src/runtime/cluster/status.js';
import { workerJob } from '../../../src/runtime/cluster/worker.js';
import { mamba2 } from '../../cli/support.js';
import { freePort, type RunningWorker, startTestWorker } from '../../support/test_worker.js';

/** Whether a connection is taken. */
async function connects(host: string, port: number): Promise<boolean> {
  const socket = net.connect({ host, port });
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

describe('a worker', () => {
  let worker: RunningWorker;
  before(async function () {
    this.timeout(120_000);
    worker = await startTestWorker();
  });
  after(() => void worker.child.kill('SIGKILL'));

  it('tells its version and its devices, and that nobody is asked who he is', async () => {
    const address = addressOf(worker.address, 'test');
    const status = await askWorker(address, 30_000);
    expect(status.job).to.equal(workerJob());
    expect(status.devices.map(({ type, index }) => `${type}:${index}`)).to.deep.equal(['CPU:0']);
    checkVersion(address, status);
    expect(worker.text()).to.include('no authentication');
  });

  it('is reached at the address that it was given alone', async () => {
    expect(await connects('127.0.0.1', worker.port)).to.equal(true);
    const others = Object.values(os.networkInterfaces()).flatMap((each) => each ?? []);
    for (const { address } of others.filter(({ internal, scopeid }) => !internal && !scopeid))
      expect(await connects(address, worker.port), address).to.equal(false);
    expect(await connects('127.0.0.2', worker.port)).to.equal(false);
  });

  it('does not share its port', () => {
    const { code, err } = mamba2(['worker', '--listen', `${worker.port}`, '--device', 'cpu']);
    expect(code).to.equal(1);
    expect(err).to.include(`cannot listen at 127.0.0.1:${worker.port}: another program listens there`);
  }).timeout(120_000);

  it('ends with SIGTERM, by itself', async () => {
    expect(await worker.end('SIGTERM')).to.equal(0);
    expect(worker.text()).to.include('SIGTERM: the worker ends');
    expect(await connects('127.0.0.1', worker.port)).to.equal(false);
  });
});

describe('addresses of workers', () => {
  it('are HOST:PORT, or a port of this machine', () => {
    const texts = ['7700', ':7700', 'localhost:1', '10.0.0.2:65535', '[::1]:7700'];
    expect(texts.map((text) => textOf(addressOf(text, 'x')))).to.deep.equal([
      ...['127.0.0.1:7700', '127.0.0.1:7700', 'localhost:1', '10.0.0.2:65535', '[::1]:7700'],
    ]);
    for (const text of ['', 'host', 'host:', 'host:0', 'host:65536', '::1:7700', '[host]:1', 'http://host:1', 'a b:1'])
      expect(() => addressOf(text, '--listen'), text).to.throw(/--listen: got .*expected HOST:PORT/);
  });

  it('that no worker is at give errors that say so', async () => {
    const port = await freePort();
    const error = await askWorker({ host: '127.0.0.1', port }, 5000).catch((e: Error) => e);
    expect((error as Error).message).to.equal('nobody listens there');
    const silent = net.createServer(() => undefined).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const at = { host: '127.0.0.1', port: (silent.address() as net.AddressInfo).port };
    const late = (await askWorker(at, 300).catch((e: Error) => e)) as Error;
    silent.close();
    expect(late.message).to.equal('no answer within 0.3 s');
  });

  it('of another version are refused, with both versions', () => {
    const address = { host: '10.0.0.2', port: 7700 };
    const of = (job: string) => () => checkVersion(address, { job, devices: [] });
    expect(of('mamba2_0_0_9_native_3_tensorflow_2_20_0')).to.throw(
      /10\.0\.0\.2:7700 is tfjs-mamba2 0\.0\.9 \(addons 3, TensorFlow 2\.20\.0\)/,
    );
    expect(of('worker')).to.throw(/no worker of this package \(worker\)/);
  });
});
