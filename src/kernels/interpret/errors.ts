import { type ErrorData, Mamba2Error } from '../../base/errors.js';

/**
 * A kernel that does what no card would do, or none should: reads beyond a buffer, say, or an instruction that the interpreter does not
 * know. `data` has the instruction and, where there is one, the thread, the place and the parameter.
 */
export class InterpreterError extends Mamba2Error {
  override name = 'InterpreterError';
  constructor(language: 'ptx' | 'ttir', message: string, data: ErrorData) {
    super(`${language}: ${message}`, { language, ...data });
  }
}
