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

/** How a model is shared out over devices, as accelerate names it: 'auto' is 'balanced'. */
export const SHARED = ['auto', 'balanced', 'balanced_low_0', 'sequential'] as const;

/** Where the layers of a model lie, as accelerate says it: shared out, all on one device, or devices by the names of modules. */
export type DeviceMap =
  | 'auto'
  | 'balanced'
  | 'balanced_low_0'
  | 'sequential'
  | DeviceLike
  | Readonly<Record<string, DeviceLike | `cpu:${number}`>>;

/** Memory that devices may take for weights, by device: bytes, or a text such as '10GB' (10⁹) or '10GiB' (2³⁰). */
export type MaxMemory = Readonly<Record<string | number, number | string>>;

/** How the layers of a model are split over devices, as transformers names it: 'auto' is the plan that follows from the architecture. */
export type TpPlan = 'auto';

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

/** A device that layers may lie on: a GPU, or one of the logical devices that a processor is where a map names several. */
export interface LayerDevice {
  readonly type: 'gpu' | 'cpu';
  readonly index: number;
}

/** What a map's name of a device means: 0, '0', 'cuda', 'cuda:0', 'gpu:0', 'cpu', 'cpu:1'. Null for what is none that layers may lie on. */
export function layerDevice(name: unknown): LayerDevice | null {
  const cpu = typeof name === 'string' ? /^cpu:(\d{1,2})$/.exec(name)?.[1] : undefined;
  if (cpu !== undefined) return { type: 'cpu', index: Number(cpu) };
  const parsed = parse(name);
  if (parsed?.device === 'cpu') return { type: 'cpu', index: 0 };
  return parsed?.device === 'gpu' ? { type: 'gpu', index: parsed.card ?? 0 } : null;
}

/** The one device of a device_map: 'auto' for those that share out. Null for a map by modules, and for what is no map. */
export function deviceOfMap(map: unknown): unknown {
  if ((SHARED as readonly unknown[]).includes(map)) return 'auto';
  if (!isPlain(map)) return parse(map) ? map : null;
  const keys = Object.keys(map);
  return keys.length === 1 && keys[0] === '' && parse(map['']) ? map[''] : null;
}

/** What `device_map` options take. Devices and modules of a record are judged with more to go by (engine/placement). */
export const deviceMapKind: Kind = {
  expected: "'auto', 'balanced', 'balanced_low_0', 'sequential', a device, or a record of modules and their devices",
  ok: (v) => isPlain(v) || deviceOfMap(v) !== null,
};

/** What `max_memory` options take. */
export const maxMemoryKind: Kind = {
  expected: "a record of devices and bytes, such as { 0: '10GB', 1: '20GB' }",
  ok: isPlain,
};

/** What `tp_plan` options take. */
export const tpPlanKind: Kind = {
  expected: "'auto', the one plan: heads are shared out over all GPUs, or over tp_size devices",
  ok: (v) => v === 'auto',
};
