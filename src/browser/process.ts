/** `process` in a page, as far as it is used: no environment, warnings and texts on the console. Put in its place by the browser's build. */

const writer = (write: (text: string) => void) => {
  let line = '';
  return {
    isTTY: false,
    /** Whole lines: a console has no others. */
    write(text: string, done?: (error?: Error) => void): boolean {
      const lines = (line + text).split('\n');
      line = lines.pop()!;
      for (const each of lines) write(each);
      done?.();
      return true;
    },
  };
};

/* eslint-disable no-console */
export const process = {
  env: {} as Record<string, string | undefined>,
  platform: 'browser',
  arch: 'wasm',
  pid: 0,
  versions: { node: '' },
  stdout: writer((line) => console.log(line)),
  stderr: writer((line) => console.warn(line)),
  emitWarning(message: string): void {
    console.warn(message);
  },
  on: (): void => undefined,
  once: (): void => undefined,
  off: (): void => undefined,
};
