/**
 * Variables that outlive a call which fails for want of memory. XLA lets a function write what it assigns over what was there, and takes the memory
 * over before it asks for more. Where it gets no more it frees what it took over, which the variables still name: they would hold freed
 * memory, and free it once more.
 *
 * While somebody else owns their tensors, XLA makes new memory for what is assigned and takes nothing over. So it is in a function's first call,
 * in which memory runs out if ever, unless the variables are large. When a later call fails, or one with large variables, their values are lost.
 */
import { DeviceError } from '../../base/errors.js';
import { dtypeBytes, sizeOf } from '../../runtime/data_types.js';
import { largestGpuMemory, onGpu } from '../../runtime/index.js';
import type { FedValue, NativeSession, PreparedCall } from '../../runtime/native_session.js';
import type { VariableSpec } from '../types.js';

/** What a call assigns. */
export interface Assigns {
  names: readonly string[];
  /** Whether it is the function's first call. */
  first: boolean;
}

export const ASSIGNS_NOTHING: Assigns = { names: [], first: false };

/** Bytes of variables that may be there twice during a first call, on any device: hosts give more than there is. */
const HELD_ANYWHERE = 2 ** 28;
/** And of a GPU's memory. To ask for that takes a process, so it is asked for larger ones only. */
const HELD_SHARE = 1 / 16;

/** Whether variables are few bytes enough to be held. */
export function mayHold(variables: Iterable<VariableSpec>): boolean {
  let bytes = 0;
  for (const { shape, dtype } of variables) bytes += sizeOf(shape) * dtypeBytes(dtype);
  return bytes <= HELD_ANYWHERE || (onGpu() && bytes <= largestGpuMemory() * HELD_SHARE);
}

/** How to hold a variable, and how to let it go again. */
export interface HoldCalls {
  holds: readonly (readonly [PreparedCall, readonly FedValue[]])[];
  letGo: PreparedCall;
}

/** Holds variables during `work`. @returns what it gives; in an error, whether they were held all the time is told to `failed` */
export async function heldDuring<T>(
  native: NativeSession,
  { holds, letGo }: HoldCalls,
  work: () => Promise<T>,
  failed: (error: unknown, held: boolean) => Error,
): Promise<T> {
  // all are given to the session before anything else can be: calls stay in order
  const owners = Promise.allSettled(holds.map(([call, values]) => native.keep(call, values)));
  const done = work().then(
    (result) => ({ result }),
    (error: unknown) => ({ error }),
  );
  const held = await owners;
  const end = await done;
  const kept = held.flatMap((one) => (one.status === 'fulfilled' ? [one.value[0]!] : []));
  await Promise.allSettled(kept.map((name) => native.run(letGo, [name])));
  if ('error' in end) throw failed(end.error, kept.length === holds.length);
  return end.result;
}

/** As heldDuring(), at once. */
export function heldDuringSync<T>(
  native: NativeSession,
  { holds, letGo }: HoldCalls,
  work: () => T,
  failed: (error: unknown, held: boolean) => Error,
): T {
  const kept = holds.map(([call, values]) => native.keepSync(call, values)[0]!);
  try {
    return work();
  } catch (error) {
    throw failed(error, true);
  } finally {
    for (const name of kept) native.runSync(letGo, [name]);
  }
}

/** TensorFlow's codes of failures after which XLA may have freed what it took over: RESOURCE_EXHAUSTED, INTERNAL. */
const TAKEN_OVER = [8, 13];

/** Whether a failure leaves variables without their memory that a call assigns and nobody held. */
export const losesAssigned = (error: unknown): boolean => TAKEN_OVER.includes((error as { code?: number }).code ?? 0);

/** The error of what is asked of a program whose variables are lost. */
export function lostError(label: string, names: readonly string[], cause: DeviceError): DeviceError {
  const some = names.slice(0, 3).join(', ') + (names.length > 3 ? ` and ${names.length - 3} more` : '');
  return new DeviceError(
    `${label}: the values of ${some} are lost since a call failed (${cause.message}) Dispose of what uses it, and load it again.`,
    { lost: [...names] },
    { cause },
  );
}
