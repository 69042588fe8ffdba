/** Runs commands one after another in one process, each as bin/mamba2.js runs it: modules and TensorFlow are loaded once. */
import { PassThrough } from 'node:stream';
import { main } from '../../src/cli/main.js';

// each call of main() listens for closed pipes
process.stdout.setMaxListeners(0);
process.on('message', ({ args, input, end }: { args: string[]; input: string; end: string }) => {
  const stdin = new PassThrough();
  stdin.end(input);
  Object.defineProperty(process, 'stdin', { value: stdin, configurable: true });
  void main(args).then((code) => {
    process.stdout.write(end);
    process.stderr.write(end);
    process.send!({ code });
  });
});
