/** Making room for the page, or for a worker's messages, between pieces of work. */
export { isPromise } from '../../../base/async.js';

const channel = new MessageChannel();
const waiting: (() => void)[] = [];
channel.port1.onmessage = () => waiting.shift()?.();

/** Lets events be handled: a timer would wait for four milliseconds each time, and scheduler.yield() goes before the messages that wait. */
export function letOthersRun(): Promise<void> {
  return new Promise((resolve) => {
    waiting.push(resolve);
    channel.port2.postMessage(null);
  });
}
