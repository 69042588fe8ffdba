/** What a page and its worker leave behind of signals, over two ends of a channel in this process. */
import { expect } from 'chai';
import { getEventListeners } from 'node:events';
import { Channel } from '../../src/browser/worker/messages.js';

interface Remote {
  later(options: { signal: AbortSignal }): Promise<string>;
  made(options: { signal: AbortSignal }): Promise<{ aborted(): Promise<boolean> }>;
  fails(signal: AbortSignal): Promise<void>;
}

describe('signals that go to a worker', () => {
  const { port1, port2 } = new MessageChannel();
  let end: (answer: string) => void;
  class Kept {
    constructor(private readonly signal: AbortSignal) {}
    aborted(): boolean {
      return this.signal.aborted;
    }
  }
  const other = new Channel(port2, {
    later: ({ signal }: { signal: AbortSignal }) =>
      new Promise<string>((done) => {
        end = done;
        signal.addEventListener('abort', () => done(`aborted: ${signal.reason}`));
      }),
    made: ({ signal }: { signal: AbortSignal }) => new Kept(signal),
    fails: () => Promise.reject(new Error('no')),
  });
  const channel = new Channel(port1);
  const remote = channel.root as Remote;
  const controllers = (other as unknown as { controllers: Map<number, AbortController> }).controllers;
  const turn = (): Promise<void> => new Promise((done) => setTimeout(done, 5));
  const listeners = (signal: AbortSignal): number => getEventListeners(signal, 'abort').length;

  before(() => {
    port1.start();
    port2.start();
  });
  after(() => port1.close());

  it('have one listener while calls run, and none when the last is answered', async () => {
    const { signal } = new AbortController();
    const first = remote.later({ signal });
    await turn();
    const endFirst = end;
    const second = remote.later({ signal });
    await turn();
    expect([listeners(signal), controllers.size]).to.deep.equal([1, 1]);
    endFirst('one');
    expect(await first).to.equal('one');
    await turn();
    expect([listeners(signal), controllers.size]).to.deep.equal([1, 1]);
    end('two');
    expect(await second).to.equal('two');
    await turn();
    expect([listeners(signal), controllers.size]).to.deep.equal([0, 0]);
  });

  it('stop what runs, and leave nothing; nor do calls that fail', async () => {
    const controller = new AbortController();
    const running = remote.later({ signal: controller.signal });
    await turn();
    controller.abort('enough');
    expect(await running).to.equal('aborted: enough');
    const failing = new AbortController();
    const error = await remote.fails(failing.signal).catch((cause: unknown) => cause as Error);
    expect((error as Error).message).to.equal('no');
    await turn();
    expect([listeners(controller.signal), listeners(failing.signal), controllers.size]).to.deep.equal([0, 0, 0]);
  });

  it('are heeded by what a call made, after its answer', async () => {
    const controller = new AbortController();
    const made = await remote.made({ signal: controller.signal });
    expect(await made.aborted()).to.equal(false);
    controller.abort();
    await turn();
    expect(await made.aborted()).to.equal(true);
  });
});
