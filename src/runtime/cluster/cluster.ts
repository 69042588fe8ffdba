/** The workers that one process drives: found and checked before a run, and watched in it. */
import { ArgumentError, DeviceError } from '../../base/errors.js';
import { MessageWriter } from '../../base/proto.js';
import { type Address, addressOf, textOf } from './address.js';
import { askWorker, checkVersion, type WorkerDevice, type WorkerStatus } from './status.js';

/** Milliseconds: for how long workers are waited for, how often they are asked in a run, and for how long an answer is waited for. */
const WAIT = 60_000;
const [EVERY, ANSWER, MISSED] = [4000, 8000, 2] as const;

export interface ClusterOptions {
  /** Milliseconds that workers may take until they listen. Default 60,000. */
  wait?: number;
  /** Told once in ten seconds what is waited for. */
  on_notice?: (message: string) => void;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** @throws ArgumentError for what is no address, or one that is there twice */
function checkAddresses(workers: readonly string[]): Address[] {
  const addresses = workers.map((text) => addressOf(text, 'workers'));
  const texts = addresses.map(textOf);
  const twice = texts.find((text, i) => texts.indexOf(text) !== i);
  if (twice !== undefined)
    throw new ArgumentError(`workers: ${twice} is there twice; a worker is one replica for each of its devices.`, {
      twice,
    });
  return addresses;
}

/** Devices of a worker that replicas run on: its GPUs, or its CPU. */
function usable(devices: readonly WorkerDevice[]): WorkerDevice[] {
  const gpus = devices.filter(({ type }) => type === 'GPU');
  return gpus.length > 0 ? gpus : devices.filter(({ type }) => type === 'CPU').slice(0, 1);
}

export class Cluster {
  private timer: NodeJS.Timeout | null = null;

  private constructor(
    private readonly addresses: readonly Address[],
    private readonly states: readonly WorkerStatus[],
  ) {}

  /**
   * Waits until all workers answer.
   * @throws ArgumentError for wrong addresses, DeviceError for a worker that does not answer in time or is of another version
   */
  static async open(workers: readonly string[], { wait = WAIT, on_notice }: ClusterOptions = {}): Promise<Cluster> {
    const addresses = checkAddresses(workers);
    const end = performance.now() + wait;
    const states = await Promise.all(
      addresses.map(async (address) => {
        let told = performance.now() - 7000;
        for (;;) {
          try {
            const status = await askWorker(address, Math.min(ANSWER, wait));
            checkVersion(address, status);
            return status;
          } catch (error) {
            if (error instanceof DeviceError) throw error;
            const why = (error as Error).message;
            if (performance.now() + 500 > end)
              throw new DeviceError(
                `The worker ${textOf(address)} cannot be reached: ${why}. Waited ${Math.round(wait / 1000)} s. ` +
                  `Start it there: mamba2 worker --listen ${textOf(address)}`,
                { address: textOf(address) },
                { cause: error },
              );
            if (performance.now() - told >= 10_000) {
              told = performance.now();
              on_notice?.(`Waiting for the worker ${textOf(address)}: ${why}`);
            }
            await pause(500);
          }
        }
      }),
    );
    return new Cluster(addresses, states);
  }

  /** Devices for replicas, worker after worker, by the names that they have in the session. */
  get devices(): { device: string; host: string; name: string }[] {
    return this.states.flatMap(({ devices }, task) => {
      const of = `/job:worker/replica:0/task:${task}/device:`;
      return usable(devices).map(({ type, index }) => ({
        device: `${of}${type}:${index}`,
        host: `${of}CPU:0`,
        name: `${textOf(this.addresses[task]!)} ${type}:${index}`,
      }));
    });
  }

  /** Of the session. */
  get target(): string {
    return `grpc://${textOf(this.addresses[0]!)}`;
  }

  /** Fields of a ConfigProto: the workers, whose devices are renamed by it. */
  get config(): MessageWriter {
    const job = new MessageWriter().bytes(1, 'worker');
    this.addresses.forEach((address, i) => job.bytes(2, new MessageWriter().int(1, i).bytes(2, textOf(address))));
    return new MessageWriter().bytes(14, new MessageWriter().bytes(1, job));
  }

  /**
   * Asks the workers again and again, until stop().
   * @param lost called once, with an error that names the worker
   */
  watch(lost: (error: DeviceError) => void): void {
    const missed = this.addresses.map(() => 0);
    const round = async (): Promise<void> => {
      for (const [i, why] of (await this.ask()).entries()) {
        missed[i] = why === null ? 0 : missed[i]! + 1;
        if (why !== null && (missed[i] >= MISSED || why.certain)) {
          lost(this.lostAt(i, why.text));
          return;
        }
      }
      if (this.timer) this.timer = setTimeout(() => void round(), EVERY).unref();
    };
    this.timer = setTimeout(() => void round(), EVERY).unref();
  }

  /** Which worker is lost, if one is, after a call has failed; null where all answer. */
  async findLost(): Promise<DeviceError | null> {
    const answers = await this.ask();
    const at = answers.findIndex((why) => why !== null);
    return at < 0 ? null : this.lostAt(at, answers[at]!.text);
  }

  stop(): void {
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
  }

  private lostAt(i: number, why: string): DeviceError {
    const address = textOf(this.addresses[i]!);
    return new DeviceError(
      `The worker ${address} is lost: ${why}. The snapshots of this run are whole: go on from the last one (resume), with any number of workers.`,
      { address },
    );
  }

  /** Why a worker is not the one of the beginning; null where it is. */
  private ask(): Promise<({ text: string; certain: boolean } | null)[]> {
    return Promise.all(
      this.addresses.map(async (address, i) => {
        try {
          const now = await askWorker(address, ANSWER);
          if (now.devices[0]!.incarnation === this.states[i]!.devices[0]!.incarnation) return null;
          return { text: 'it was started anew', certain: true };
        } catch (error) {
          const { message } = error as Error;
          return { text: message, certain: message === 'nobody listens there' };
        }
      }),
    );
  }
}
