/** What a page cannot do, said by its name. */
import { DeviceError } from '../base/errors.js';

/** A function that is not there in a browser. @param what it does, as the beginning of a sentence */
export function needsNode(what: string): (...args: unknown[]) => never {
  return () => {
    throw new DeviceError(`${what} needs Node.js: this is the browser's build of tfjs-mamba2.`, {
      needs: 'node',
      what,
    });
  };
}

/** The same, of a function that gives a promise. */
export function needsNodeLater(what: string): (...args: unknown[]) => Promise<never> {
  const refuse = needsNode(what);
  return async () => refuse();
}
