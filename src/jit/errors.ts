/**
 * Errors of this room. A wrong argument is an ArgumentError here as anywhere, use after dispose() a DisposedError, and what a device refuses
 * (a graph, memory) a DeviceError.
 */
import { Mamba2Error } from '../base/errors.js';

/** Base of the errors that compiling alone can have. */
export class JitError extends Mamba2Error {
  override name = 'JitError';
}

/** Code that cannot be compiled: a value read while tracing, an unknown op, an undeclared tensor. */
export class TracingError extends JitError {
  override name = 'TracingError';
}
