/** What device_map and max_memory ask for, before a model or a device is known: names of devices and sizes are judged here. */
import {
  type DeviceLike,
  type DeviceMap,
  deviceMapKind,
  deviceOfMap,
  type LayerDevice,
  layerDevice,
  type MaxMemory,
  maxMemoryKind,
  SHARED,
  type TpPlan,
  tpPlanKind,
} from '../../base/devices.js';
import { ArgumentError } from '../../base/errors.js';
import { integer, isPlain } from '../../base/option_kinds.js';
import { type OptionRules, OptionTable } from '../../base/options.js';
import { quote } from '../../base/quote.js';
import { parseSize } from '../../checkpoints/save.js';
import type { DeviceMapKind } from './infer.js';

/** Bytes that devices may take, by number: of GPUs, and of a processor's logical devices. */
export interface Rooms {
  readonly gpu: ReadonlyMap<number, number>;
  readonly cpu: ReadonlyMap<number, number>;
}

export type MapRequest =
  /** all on the device that is selected */
  | { readonly kind: 'one'; readonly device: DeviceLike }
  | { readonly kind: 'shared'; readonly how: DeviceMapKind; readonly rooms: Rooms | null }
  | { readonly kind: 'modules'; readonly type: LayerDevice['type']; readonly modules: ReadonlyMap<string, number> }
  /** a part of each layer on every device. Null: on all GPUs */
  | { readonly kind: 'tensors'; readonly size: number | null };

/** Where a model lies: see the options of from_pretrained(). */
export interface MapOptions {
  device_map?: DeviceMap;
  max_memory?: MaxMemory;
  tp_plan?: TpPlan;
  tp_size?: number;
}

const DEVICES = "the number of a GPU, 'cuda:N', 'cpu', or 'cpu:N' for a processor that stands for several devices";

/** Rules of MapOptions. */
export const MAP_RULES: OptionRules<MapOptions> = {
  device_map: { kind: deviceMapKind },
  max_memory: { kind: maxMemoryKind },
  tp_plan: { kind: tpPlanKind },
  tp_size: { kind: integer({ min: 1 }) },
};

/** Options of place(). */
export const PLACE_TABLE = new OptionTable<MapOptions>('place()', MAP_RULES);

/** What is said of places that are no devices. */
function noDevice(option: string, where: string, got: unknown): ArgumentError {
  const why =
    got === 'disk' || got === 'meta'
      ? 'layers are not offloaded: they lie on devices, and what has no room there has none. Use more devices, bfloat16 (dtype) or int4 (quantization_config)'
      : `expected ${DEVICES}`;
  return new ArgumentError(`${option}: ${where}${quote(got)}: ${why}.`, { option, got, expected: DEVICES });
}

function roomsOf(memory: MaxMemory): Rooms {
  const rooms = { gpu: new Map<number, number>(), cpu: new Map<number, number>() };
  for (const [name, size] of Object.entries(memory)) {
    const device = layerDevice(name);
    if (!device) throw noDevice('max_memory', 'got the device ', name);
    const bytes = size === 0 ? 0 : parseSize(size, `max_memory[${quote(name)}]`);
    const of = rooms[device.type];
    if (of.has(device.index))
      throw new ArgumentError(`max_memory: ${quote(name)} names a device that is there already.`, { option: 'max_memory', got: name }); // prettier-ignore
    if (bytes > 0) of.set(device.index, bytes);
  }
  if (rooms.gpu.size + rooms.cpu.size > 0) return rooms;
  throw new ArgumentError(`max_memory: got ${quote(memory)}, which leaves no device any memory.`, {
    option: 'max_memory',
    got: memory,
  });
}

function byModules(map: Readonly<Record<string, unknown>>): MapRequest {
  const found = Object.entries(map).map(([module, name]) => {
    const device = layerDevice(name);
    if (!device) throw noDevice('device_map', `got for the module ${quote(module)} the device `, name);
    return [module, device] as const;
  });
  const [first] = found;
  if (!first)
    throw new ArgumentError(
      "device_map: got {}, which names no module. Write { '': 0 } for a model on one device, or 'auto'.",
      { option: 'device_map', got: map },
    );
  const { type } = first[1];
  const other = found.find(([, device]) => device.type !== type);
  if (other)
    throw new ArgumentError(
      `device_map: ${quote(first[0])} lies on ${quote(map[first[0]])} and ${quote(other[0])} on ${quote(map[other[0]])}: a model lies on GPUs or on the processor, not on both, ` +
        'and layers are not offloaded to the processor.',
      { option: 'device_map', got: map },
    );
  return { kind: 'modules', type, modules: new Map(found.map(([module, { index }]) => [module, index])) };
}

/** @throws ArgumentError for a plan beside a map, and for a number of devices without a plan */
function parallelRequest({
  tp_plan: plan,
  tp_size: size,
  device_map: map,
  max_memory: memory,
}: MapOptions): MapRequest | null {
  if (plan === undefined) {
    if (size === undefined) return null;
    throw new ArgumentError(
      `tp_size is ${size}, which has no effect without a plan: pass tp_plan: 'auto', too. (device_map puts whole layers on several devices.)`,
      { option: 'tp_size', got: size },
    );
  }
  const [option, got] = map !== undefined ? ['device_map', map] : ['max_memory', memory];
  if (got !== undefined)
    throw new ArgumentError(
      `tp_plan is ${quote(plan)}, and ${option} is given too: the one splits every layer over devices, the other is for whole layers on each. Pass either.`,
      { option: 'tp_plan', got: plan, [option]: got },
    );
  return { kind: 'tensors', size: size ?? null };
}

/**
 * Reads the options, whose kinds are known to be right. Null where none is given.
 * @throws ArgumentError for a device that is none, sizes that are none, a map of no modules, or one beside memory or a plan that it does not go with
 */
export function mapRequest(options: MapOptions): MapRequest | null {
  const parallel = parallelRequest(options);
  if (parallel) return parallel;
  const { device_map: map, max_memory: memory } = options;
  const rooms = memory === undefined ? null : roomsOf(memory);
  const shared = SHARED.find((how) => how === map);
  if (rooms && !shared)
    throw new ArgumentError(
      `max_memory has no effect ${map === undefined ? 'without a device_map' : `with the device_map ${quote(map)}, which says where modules lie`}: it is for 'auto', 'balanced' and 'sequential'.`,
      { option: 'max_memory', got: memory, device_map: map },
    );
  if (map === undefined) return null;
  if (shared) return { kind: 'shared', how: shared, rooms };
  const one = deviceOfMap(map);
  if (one !== null) return { kind: 'one', device: one as DeviceLike };
  return byModules(isPlain(map) ? map : {});
}

/** The device to select for a request. */
export function selectedFor(request: MapRequest): DeviceLike {
  switch (request.kind) {
    case 'one':
      return request.device;
    case 'shared': {
      const { rooms } = request;
      if (!rooms || (rooms.gpu.size > 0 && rooms.cpu.size > 0)) return 'auto';
      return rooms.gpu.size > 0 ? 'gpu' : 'cpu';
    }
    case 'tensors':
      return 'auto';
    case 'modules': {
      if (request.type === 'cpu') return 'cpu';
      const cards = new Set(request.modules.values());
      return cards.size === 1 ? `cuda:${[...cards][0]!}` : 'gpu';
    }
  }
}
