/** The names of devices. Imports no TensorFlow.js, so that a command line can list them without loading it. */
import { ArgumentError } from './errors.js';
import type { Kind } from './option_kinds.js';
import { isPlain } from './option_kinds.js';
import { quote } from './quote.js';

/** Names of devices, as `device` options take them. */
export const DEVICES = ['auto', 'cpu', 'gpu', 'tensorflow', 'wasm', 'webgpu', 'js'] as const;

/**
 * `auto`: TensorFlow when it is set up (on a GPU when there is one), else WebAssembly. `cpu`: the same without GPUs.
 * `gpu`: TensorFlow on a GPU or an error. `tensorflow`: TensorFlow or an error. `wasm`: WebAssembly. `webgpu`: in a page
 * alone. `js`: plain JavaScript, the slow backend that every tfjs has. In a page `auto` and `cpu` are WebAssembly, and `gpu` is WebGPU.
 */
export type Device = (typeof DEVICES)[number];

/**
 * A device as transformers and PyTorch name it, too: `0` and `'cuda:0'` are the first GPU, `'cuda'` is `'gpu'`, `-1` is
 * `'cpu'`.
 */
export type DeviceLike = Device | 'cuda' | `cuda:${number}` | `gpu:${number}` | number;

/** Where the layers of a model lie, as accelerate says it: all on one device today. */
export type DeviceMap =
  'auto' | 'balanced' | 'balanced_low_0' | 'sequential' | DeviceLike | { readonly '': DeviceLike };

/** A device, and which GPU of several; null where it does not say. */
export interface ParsedDevice {
  readonly device: Device;
  readonly card: number | null;
}

const EXPECTED = `one of ${DEVICES.join(', ')}, cuda, cuda:N, gpu:N, or the number of a GPU (-1 is the cpu)`;

function parse(device: unknown): ParsedDevice | null {
  if (typeof device === 'string' && /^-?\d+$/.test(device)) return parse(Number(device)); // as a command line has it
  if (device === -1) return { device: 'cpu', card: null };
  if (typeof device === 'number')
    return Number.isSafeInteger(device) && device >= 0 ? { device: 'gpu', card: device } : null;
  if (typeof device !== 'string') return null;
  if ((DEVICES as readonly string[]).includes(device)) return { device: device as Device, card: null };
  if (device === 'cuda') return { device: 'gpu', card: null };
  if (device === 'cpu:0') return { device: 'cpu', card: null };
  const card = /^(?:cuda|gpu):(\d{1,4})$/.exec(device)?.[1];
  return card === undefined ? null : { device: 'gpu', card: Number(card) };
}

/**
 * What a device's name means here.
 * @param device a name, or a GPU's number as a number or a text
 * @throws ArgumentError for what names no device
 * @example
 * parseDevice('cuda:1'); // { device: 'gpu', card: 1 }
 */
export function parseDevice(device: unknown): ParsedDevice {
  const parsed = parse(device);
  if (parsed) return parsed;
  throw new ArgumentError(`device: got ${quote(device)}, expected ${EXPECTED}.`, {
    option: 'device',
    got: device,
    expected: EXPECTED,
  });
}

/** What `device` options take. */
export const deviceKind: Kind = { expected: EXPECTED, ok: (v) => parse(v) !== null };

const MAPS: readonly unknown[] = ['auto', 'balanced', 'balanced_low_0', 'sequential'];

/** The one device of a device_map: 'auto' for those that leave the choice. Null for a map of several modules, and for what is no map. */
export function deviceOfMap(map: unknown): unknown {
  if (MAPS.includes(map)) return 'auto';
  if (!isPlain(map)) return parse(map) ? map : null;
  const keys = Object.keys(map);
  return keys.length === 1 && keys[0] === '' && parse(map['']) ? map[''] : null;
}

/** What `device_map` options take. */
export const deviceMapKind: Kind = {
  expected: "'auto', 'balanced', 'sequential', a device, or { '': device }: a model lies on one device",
  ok: (v) => deviceOfMap(v) !== null,
};
