/** Memory as a kernel in PTX sees it: buffers of the parameters, by addresses that name them. */
import { InterpreterError } from './errors.js';

/** Addresses of global memory: number of the buffer times this, and a place in bytes. */
const BUFFER = 2 ** 40;

/** Address of the first byte of a parameter's buffer. */
export const addressOf = (parameter: number): number => parameter * BUFFER;

export interface Location {
  view: DataView;
  at: number;
}

/** Memory of the card: the buffers of the parameters, of which several may be one. */
export class CardMemory {
  private readonly views: DataView[];
  /** Words that the kernel has written, by the memory that they lie in. */
  private readonly written = new Map<ArrayBufferLike, Uint8Array>();

  constructor(memory: readonly ArrayBufferView[]) {
    this.views = memory.map((x) => new DataView(x.buffer, x.byteOffset, x.byteLength));
  }

  private words(view: DataView): Uint8Array {
    let found = this.written.get(view.buffer);
    if (!found) this.written.set(view.buffer, (found = new Uint8Array(Math.ceil(view.buffer.byteLength / 4))));
    return found;
  }

  /** Notes that a word is written. */
  writes({ view, at }: Location): void {
    this.words(view)[(view.byteOffset + at) >> 2] = 1;
  }

  wasWritten({ view, at }: Location): boolean {
    return this.words(view)[(view.byteOffset + at) >> 2] === 1;
  }

  /** @throws InterpreterError unless all bytes are a parameter's, and aligned */
  locate(op: string, address: number, bytes: number, thread: number): Location {
    const parameter = Math.round(address / BUFFER - 1e-4);
    return checked(op, this.views[parameter], address - addressOf(parameter), bytes, { parameter, thread });
  }
}

/** @throws InterpreterError unless all bytes are within the view, and aligned */
export function checked(
  op: string,
  view: DataView | undefined,
  at: number,
  bytes: number,
  where: { parameter: number | 'shared memory'; thread: number },
): Location {
  const data = { instruction: op, at, bytes, size: view?.byteLength, ...where };
  if (!view || !(at >= 0 && at + bytes <= view.byteLength))
    throw new InterpreterError(
      'ptx',
      `${op} at ${at} of ${view?.byteLength} bytes (parameter ${where.parameter}, thread ${where.thread})`,
      data,
    );
  if (at % bytes !== 0) throw new InterpreterError('ptx', `${op} at ${at}, which is not aligned`, data);
  return { view, at };
}
