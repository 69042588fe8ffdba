/** Where the modules of a model lie: a request, a model and a machine together. */
import { closestMatch } from 'leven';
import { ArgumentError, DeviceError } from '../../base/errors.js';
import { quote } from '../../base/quote.js';
import type { RecurrentLM } from '../recurrent_lm.js';
import { type Division, divisionOf, type ModuleRoles, moduleRoles } from './division.js';
import { cleaned, deviceIn, inferDeviceMap } from './infer.js';
import { ancestors, moduleSizes, type ModuleTree } from './modules.js';
import type { MapRequest } from './request.js';
import type { ParallelDevices } from './spread.js';

/** A device as hf_device_map names it: the number of a GPU, 'cpu', 'cpu:1', or a backend of TensorFlow.js. */
export type MappedDevice = number | string;

/** Devices by the names of modules; '' is the whole model. */
export type HfDeviceMap = Readonly<Record<string, MappedDevice>>;

/** What computes in this process. */
export interface Machine {
  /** Whether TensorFlow is what computes: on other backends there is one device. */
  readonly tensorflow: boolean;
  /** Bytes of each GPU that weights may take, Infinity where nobody knows; none on a processor. */
  readonly gpus: readonly number[];
  /** The one device that is in use without a map. */
  readonly device: MappedDevice;
}

export interface Placement {
  readonly map: HfDeviceMap;
  /** Null where no device has some of the layers and another device others. */
  readonly division: Division | null;
  /** Where every device has a part of each layer. */
  readonly parallel?: ParallelDevices;
}

const size = (bytes: number): string =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${bytes} bytes`;

/** Names that a map may have, for messages. */
function moduleNames(tree: ModuleTree): string[] {
  return [...new Set([...tree.whole].flatMap((name) => [...ancestors(name), name]))];
}

/** @throws ArgumentError for names that are no modules, parts of a layer, or modules without a device */
function checkModules(tree: ModuleTree, map: ReadonlyMap<string, number>): void {
  const names = moduleNames(tree);
  const [option, expected] = ['device_map', names];
  for (const name of map.keys()) {
    if (names.includes(name)) continue;
    const around = ancestors(name).find((part) => tree.whole.has(part));
    if (around !== undefined)
      throw new ArgumentError(
        `device_map: ${quote(name)} is a part of ${quote(around)}, which lies on one device. Name that.`,
        { option, got: name, expected },
      );
    const near = closestMatch(name, names);
    const shown = names.filter((each) => !/\.\d+$/.test(each)).map((each) => quote(each));
    const first = names.find((each) => /\.0$/.test(each));
    throw new ArgumentError(
      `device_map: the model has no module ${quote(name)}.${near ? ` Did you mean ${quote(near)}?` : ''} Its modules are ${shown.join(', ')}${first ? ` and the layers from ${quote(first)}` : ''}.`,
      { option, got: name, expected },
    );
  }
  const tied = new Set(tree.tied.flatMap((group) => group.slice(1)));
  const without = [...tree.whole].filter((name) => deviceIn(map, name) === undefined && !isTied(name, tied));
  if (without.length === 0) return;
  const more = without.length > 6 ? ` and ${without.length - 6} more` : '';
  throw new ArgumentError(
    `device_map gives no device to ${without.slice(0, 6).map((name) => quote(name)).join(', ')}${more}. Add them, or '' for all that is not named.`, // prettier-ignore
    { option, got: [...map.keys()], missing: without },
  );
}

const isTied = (module: string, tied: ReadonlySet<string>): boolean =>
  [...tied].some((tensor) => tensor.startsWith(`${module}.`));

/** The device of each module that lies on one: a head that is the embedding lies where that does, if nobody says otherwise. */
function deviceOf({ embedding }: ModuleRoles, map: ReadonlyMap<string, number>): (module: string) => number {
  return (module) => deviceIn(map, module) ?? deviceIn(map, embedding)!;
}

function noRoom(
  missing: number,
  modules: readonly string[],
  tree: ModuleTree,
  rooms: ReadonlyMap<MappedDevice, number>,
  given: boolean,
): Error {
  const total = moduleSizes(tree).get('')!;
  const have = [...rooms].map(([device, bytes]) => `${device}: ${size(bytes)}`).join(', ');
  const text =
    `The model takes ${size(total)}, and ${size(missing)} of it have no room (${modules.slice(0, 4).join(', ')}${modules.length > 4 ? ', …' : ''}): ` +
    `${given ? 'max_memory has' : 'free on the GPUs are'} ${have}. ${given ? 'Allow more' : 'Free some'}, use more devices, bfloat16 (dtype) or int4 ` +
    "(quantization_config); nothing is offloaded to 'cpu' or 'disk'.";
  const data = { option: 'max_memory', missing, needed: total, modules, devices: Object.fromEntries(rooms) };
  return given ? new ArgumentError(`max_memory: ${text}`, data) : new DeviceError(`device_map: ${text}`, data);
}

/**
 * Where each module lies.
 * @throws ArgumentError for a map or a plan that does not fit the model, a device that is not there, or too little memory; DeviceError where the GPUs have
 *   too little, or the backend has one device
 */
export function placeModel(network: RecurrentLM, tree: ModuleTree, request: MapRequest, machine: Machine): Placement {
  const { gpus, tensorflow } = machine;
  const onGpus = gpus.length > 0;
  const alone: Placement = { map: { '': machine.device }, division: null };
  if (request.kind === 'one') return alone;
  if (request.kind === 'tensors') return placeParts(network, request.size, machine) ?? alone;
  const roles = moduleRoles(network);
  if (request.kind === 'modules') {
    checkModules(tree, request.modules);
    const several = new Set(request.modules.values()).size > 1;
    const named = (index: number): MappedDevice =>
      request.type === 'gpu' ? index : several || index > 0 ? `cpu:${index}` : 'cpu';
    const map = Object.fromEntries([...request.modules].map(([module, index]) => [module, named(index)]));
    // a GPU that was asked for alone is the only one that TensorFlow sees
    if (!several && (request.type === 'gpu' || [...request.modules.values()][0] === 0)) return { map, division: null };
    if (!tensorflow || (request.type === 'gpu') !== onGpus)
      throw new DeviceError(
        `device_map: the model is to lie on several devices, and the backend in use has one ('${machine.device}'). Several are ${request.type === 'gpu' ? 'GPUs' : 'devices'} of TensorFlow.`,
        { option: 'device_map', device: machine.device },
      );
    if (onGpus) checkCards('device_map', request.modules.values(), gpus.length);
    return { map, division: divisionOf(roles, deviceOf(roles, request.modules)) };
  }
  const given = request.rooms && (onGpus ? request.rooms.gpu : request.rooms.cpu);
  if (!given && gpus.length < 2) return alone;
  if (given?.size === 0)
    throw new ArgumentError(
      `max_memory names no device that is in use: that is ${onGpus ? `GPUs, ${cards(gpus.length)}` : `'${machine.device}'`}.`,
      { option: 'max_memory', got: Object.fromEntries([...request.rooms!.gpu, ...request.rooms!.cpu]) },
    );
  if (given && onGpus) checkCards('max_memory', given.keys(), gpus.length);
  if (given && !tensorflow && (given.size > 1 || !given.has(0)))
    throw new DeviceError(`max_memory: the backend in use has one device ('${machine.device}').`, {
      option: 'max_memory',
      device: machine.device,
    });
  const rooms = new Map([...(given ?? gpus.entries())].sort(([a], [b]) => a - b));
  const numbers = [...rooms.keys()];
  const name = (index: number): MappedDevice =>
    onGpus ? index : numbers.length > 1 || index > 0 ? `cpu:${index}` : machine.device;
  const placed = inferDeviceMap(tree, request.how, [...rooms.values()]);
  if (!(placed instanceof Map)) {
    const named = new Map([...rooms].map(([index, bytes]) => [name(index), bytes]));
    throw noRoom(placed.missing, placed.modules, tree, named, given !== null);
  }
  const modules = new Map([...placed].map(([module, at]) => [module, numbers[at]!]));
  const map = Object.fromEntries([...cleaned(modules)].map(([module, index]) => [module, name(index)]));
  const used = new Set(modules.values());
  if (used.size === 1 && used.has(0)) return { map, division: null };
  return { map, division: divisionOf(roles, deviceOf(roles, modules)) };
}

/** A part of each layer on every device; null for one device. */
function placeParts(
  network: RecurrentLM,
  size: number | null,
  { gpus, tensorflow, device }: Machine,
): Placement | null {
  const count = size ?? Math.max(1, gpus.length);
  if (count === 1) return null;
  if (!tensorflow)
    throw new DeviceError(
      `tp_size is ${count}, and the backend in use has one device ('${device}'). Several are devices of TensorFlow.`,
      { option: 'tp_size', got: count, device },
    );
  if (gpus.length > 0 && count > gpus.length)
    throw new ArgumentError(
      `tp_size is ${count}, and there ${gpus.length === 1 ? 'is one GPU' : `are ${gpus.length} GPUs`}. Take fewer, or device: 'cpu', whose logical devices are for trying it out.`,
      { option: 'tp_size', got: count, expected: gpus.length },
    );
  const plan = network.tensorParallel?.(count);
  if (!plan)
    throw new ArgumentError(`tp_plan: a '${network.name}' has no plan. device_map: 'auto' puts whole layers on several devices.`, { option: 'tp_plan', got: 'auto' }); // prettier-ignore
  const devices = Array.from({ length: count }, (_, index) => index);
  return { map: { '': gpus.length > 0 ? 0 : 'cpu:0' }, division: null, parallel: { devices, plan } };
}

const cards = (count: number): string => (count === 1 ? '0' : `0 to ${count - 1}`);

/** @throws ArgumentError for a number that no GPU has */
function checkCards(option: string, indices: Iterable<number>, count: number): void {
  for (const index of indices)
    if (index >= count)
      throw new ArgumentError(
        `${option}: there is no GPU ${index}: ${count === 1 ? 'there is one, 0' : `there are ${count}, ${cards(count)}`}.`,
        {
          option,
          got: index,
          expected: Array.from({ length: count }, (_, i) => i),
        },
      );
}
