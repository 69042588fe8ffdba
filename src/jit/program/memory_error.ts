/** TensorFlow's words for memory that a GPU does not have, as an error that says how much there is and what to do. */
import { DeviceError } from '../../base/errors.js';
import { gpuMemory, type GpuMemory } from '../../runtime/gpu.js';
import { DTYPE_BYTES } from '../../base/stored_dtypes.js';
import { dtypeBytes, isDtype, sizeOf } from '../../runtime/data_types.js';
import type { VariableSpec } from '../types.js';

/** Bytes of an element, by the name that TensorFlow's C++ has for its type. */
function bytesOfType(name: string): number {
  if (name === 'double') return DTYPE_BYTES.F64;
  if (name === 'half') return DTYPE_BYTES.F16;
  return isDtype(name) ? dtypeBytes(name) : DTYPE_BYTES.F32;
}

/** Bytes that were asked for in vain, null where the text does not say. */
function bytesAsked(text: string): number | null {
  const stated = /allocat\w* (\d+) ?bytes/i.exec(text) ?? /([\d.]+) ?([KMGT])iB/i.exec(text);
  if (stated)
    return stated[2] === undefined ? Number(stated[1]) : Number(stated[1]) * 1024 ** (1 + 'KMGT'.indexOf(stated[2]));
  const tensor = /allocating tensor with shape\[([\d,]*)\] and type (\w+)/.exec(text);
  if (!tensor) return null;
  return sizeOf(tensor[1]!.split(',').filter(Boolean).map(Number)) * bytesOfType(tensor[2]!);
}

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(bytes < 2 ** 30 ? 3 : 1)} GiB`;

/**
 * The error for a failure for want of memory.
 * @param text TensorFlow's message @param where what ran, to begin the message with @param variables of the program
 * @param advice see ProgramOptions.memoryAdvice
 * @param memory of the GPUs. Default: as the driver reports it now
 * @returns null when the text is of another failure. Its data: `asked` (bytes or null), `variables` (bytes), `memory`
 */
export function outOfMemory(
  text: string,
  where: string,
  variables: Iterable<VariableSpec>,
  advice = '',
  memory: () => readonly GpuMemory[] = gpuMemory,
): DeviceError | null {
  if (!/RESOURCE_EXHAUSTED|\bOOM\b|out of memory|failed to allocate/i.test(text)) return null;
  const asked = bytesAsked(text);
  const held = [...variables].reduce((sum, { shape, dtype }) => sum + sizeOf(shape) * dtypeBytes(dtype), 0);
  const cards = memory();
  const there = cards
    .map(({ total, free }, i) => `GPU ${i} has ${gib(total)}, of which ${gib(free)} are free`)
    .join('; ');
  const left = Number(process.env.TF_DEVICE_MIN_SYS_MEMORY_IN_MB ?? 0) * 2 ** 20; // see configureRuntime
  const message = [
    `${where} failed: the device has not enough memory.`,
    asked === null ? '' : `It was asked for ${gib(asked)} more;`,
    `the program's variables take ${gib(held)}.`,
    there && `${there}.`,
    left > 0 ? `gpuMemoryLimit leaves ${gib(left)} of it to others.` : '',
    advice,
    'Call dispose() of what else is loaded; other processes on the GPU count too.',
  ];
  return new DeviceError(message.filter(Boolean).join(' '), { asked, variables: held, memory: cards, text });
}
