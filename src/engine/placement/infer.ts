/**
 * Which module goes to which device: accelerate's `infer_auto_device_map` and `get_balanced_memory` (accelerate/utils/modeling.py), without what is
 * offloaded. Modules are given to devices in the order of the model, each device filled before the next.
 */
import { ancestors, childrenOf, lastModules, moduleSizes, type ModuleTree, splits } from './modules.js';

/** How a model is shared out. 'auto' is 'balanced'. */
export type DeviceMapKind = 'auto' | 'balanced' | 'balanced_low_0' | 'sequential';

/** Modules, and the number of the device of each. */
export type Placed = Map<string, number>;

/** What was placed before there was no room, and the bytes that have no place. */
export interface NoRoom {
  readonly missing: number;
  readonly modules: readonly string[];
}

const within = (name: string, module: string): boolean => `${name}.`.startsWith(`${module}.`);

/** Largest module among these that stays whole. */
function largest(
  tree: ModuleTree,
  sizes: ReadonlyMap<string, number>,
  modules: readonly string[],
): { size: number; names: string[] } {
  let [size, names] = [0, [] as string[]];
  const left = [...modules];
  for (let name = left.shift(); name !== undefined; name = left.shift()) {
    const own = sizes.get(name)!;
    if (splits(tree, name)) left.unshift(...childrenOf(tree, name).filter((child) => !tree.tensors.has(child)));
    else if (own > size) [size, names] = [own, [name]];
    else if (own === size) names.push(name);
  }
  return { size, names };
}

/**
 * Fills devices one after another.
 * @param rooms bytes that each device has
 * @param reserve whether the first device keeps room for the largest module, as accelerate has it for what is offloaded
 */
export function fill(tree: ModuleTree, rooms: readonly number[], reserve: boolean): Placed | NoRoom {
  const sizes = moduleSizes(tree);
  const sizeOf = (name: string): number => sizes.get(name) ?? 0;
  const placed: Placed = new Map();
  const used = rooms.map(() => 0);
  let todo = [...childrenOf(tree, '')];
  let most = largest(tree, sizes, todo);
  const again = (): void => void (most = largest(tree, sizes, todo.filter((name) => !tree.tensors.has(name)))); // prettier-ignore
  let device = 0;
  while (todo.length > 0) {
    if (device === rooms.length) return { missing: todo.reduce((sum, name) => sum + sizeOf(name), 0), modules: todo };
    const name = todo.shift()!;
    most.names = most.names.filter((other) => !within(other, name));
    if (most.names.length === 0) again();
    const reserved = reserve && device === 0 ? most.size : 0;
    const room = rooms[device]! - reserved;
    // what is tied to a tensor in here and lies elsewhere comes along
    const ties = tree.tied.filter(
      (group) => group.some((t) => within(t, name)) && !group.every((t) => within(t, name)),
    );
    const tensors = ties.flatMap((group) => group.filter((t) => !within(t, name)));
    const found = tensors.map((tensor) => todo.find((other) => within(tensor, other)));
    const along = found.filter((other) => other !== undefined);
    const size = sizeOf(name);
    const together = size + along.reduce((sum, other, i) => sum + sizeOf(other) - sizeOf(tensors[i]!), 0);
    if (used[device]! + together <= room) {
      used[device]! += together;
      for (const each of [name, ...along]) placed.set(each, device);
      todo = todo.filter((other) => !along.includes(other));
      continue;
    }
    const split = along.length > 0 && used[device]! + size <= room ? along.find((other) => splits(tree, other)) : undefined; // prettier-ignore
    if (split !== undefined) {
      const at = todo.indexOf(split);
      todo = [name, ...todo.slice(0, at), ...childrenOf(tree, split), ...todo.slice(at + 1)];
      again();
      continue;
    }
    if (used[device]! + size >= room && splits(tree, name)) {
      todo.unshift(...childrenOf(tree, name));
      again();
      continue;
    }
    used[device]! += reserved;
    device++;
    todo.unshift(name);
  }
  return placed;
}

/** Bytes of the devices such that each gets about as many, with some to spare; the last one keeps all it has. */
export function balanced(tree: ModuleTree, rooms: readonly number[], lowZero: boolean): number[] {
  const low = lowZero && rooms.length > 1;
  if (rooms.length < 2) return [...rooms];
  // tensors that are another's do not count
  const twice = new Set(tree.tied.flatMap((group) => group.slice(1)));
  const own = { ...tree, tensors: new Map([...tree.tensors].filter(([name]) => !twice.has(name))) };
  const sizes = moduleSizes(own);
  const total = sizes.get('')!;
  const block = Math.max(0, ...[...tree.whole].filter((name) => isRepeated(name)).map((name) => sizes.get(name) ?? 0));
  const last = lastModules(own);
  const mean = Math.trunc(last.reduce((sum, name) => sum + sizes.get(name)!, 0) / Math.max(last.length, 1));
  const each = Math.floor(total / (rooms.length - (low ? 1 : 0))) + Math.trunc(1.25 * Math.max(block, mean));
  const shares = rooms.map((room, i) => (i === rooms.length - 1 || (low && i === 0) ? room : Math.min(each, room)));
  if (low) {
    const others = shares.slice(1).reduce((sum, room) => sum + room, 0);
    shares[0] = Math.min(Math.max(0, total - others), shares[0]!);
  }
  return shares;
}

/** A module of a list, as the layers are: the class that accelerate is told not to split. */
const isRepeated = (name: string): boolean => /\.\d+$/.test(name);

/**
 * The devices of all modules, as accelerate shares them out. Where that leaves modules without a place, as those would be that it offloads, the
 * devices are filled to the brim.
 */
export function inferDeviceMap(tree: ModuleTree, kind: DeviceMapKind, rooms: readonly number[]): Placed | NoRoom {
  const shares = kind === 'sequential' ? rooms : balanced(tree, rooms, kind === 'balanced_low_0');
  const placed = fill(tree, shares, true);
  return placed instanceof Map ? placed : fill(tree, rooms, false);
}

/** The same in fewer words: a module all of which lies on one device stands for what is in it. */
export function cleaned<D>(map: ReadonlyMap<string, D>): Map<string, D> {
  let left = new Map(map);
  const clean = (module: string): void => {
    const prefix = module === '' ? '' : `${module}.`;
    const below = [...left].filter(([name]) => name.startsWith(prefix));
    if (below.length > 1 && new Set(below.map(([, device]) => device)).size === 1) {
      const before = [...left].findIndex(([name]) => name.startsWith(prefix));
      const rest = [...left].filter(([name]) => !name.startsWith(prefix));
      rest.splice(before, 0, [module, below[0]![1]]);
      left = new Map(rest);
    }
    const depth = module === '' ? 1 : module.split('.').length + 1;
    const inside = [...left.keys()].filter((name) => name.startsWith(prefix) && name.length > module.length);
    for (const child of new Set(inside.map((name) => name.split('.').slice(0, depth).join('.')))) clean(child);
  };
  clean('');
  return left;
}

/** The device of a module: that of the nearest name above it, or its own. Undefined where the map has none. */
export function deviceIn<D>(map: ReadonlyMap<string, D>, module: string): D | undefined {
  const name = [module, ...ancestors(module).reverse()].find((each) => map.has(each));
  return name === undefined ? undefined : map.get(name);
}
