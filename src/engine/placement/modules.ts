/** The modules of a network by the names that transformers gives them, and how many bytes each of them takes. */
import { dtypeBytes, sizeOf } from '../../runtime/data_types.js';
import type { WeightStorage } from '../../layers/storage.js';
import type { RecurrentLM } from '../recurrent_lm.js';

/** Modules in the order of the model. A module is named by what stands before a point in the names of its tensors; '' is the model. */
export interface ModuleTree {
  /** Bytes of each tensor by its full name. Of tensors that are tied the first has them all, the others 0. */
  readonly tensors: ReadonlyMap<string, number>;
  /** Modules that lie on one device. */
  readonly whole: ReadonlySet<string>;
  /** Names of tensors that are one. */
  readonly tied: readonly (readonly string[])[];
}

/** The module of a layer with this prefix of its weights: 'backbone.layers.0.' is of backbone.layers.0. */
export const moduleOf = (prefix: string): string => prefix.replace(/\.$/, '');

/** The module that a tensor lies in. */
export const moduleOfTensor = (name: string): string => name.slice(0, name.lastIndexOf('.'));

/** Bytes of a weight as a program keeps it. */
export function storedBytes({ variables }: WeightStorage): number {
  return Object.values(variables).reduce((sum, { shape, dtype }) => sum + sizeOf(shape) * dtypeBytes(dtype), 0);
}

/** The modules of a network: every layer of it stays whole. @param bytes of a weight by its name */
export function modulesOf(network: RecurrentLM, bytes: (name: string) => number): ModuleTree {
  const tensors = new Map(network.weightSpecs().map(({ name }) => [name, bytes(name)]));
  const whole = new Set(network.namedLayers().map(({ prefix }) => moduleOf(prefix)));
  const { config, names } = network;
  if (!config.tie_word_embeddings) return { tensors, whole, tied: [] };
  tensors.set(names.head, 0);
  whole.add(moduleOfTensor(names.head));
  return { tensors, whole, tied: [[names.embedding, names.head]] };
}

/** Names of all modules above a name, the model first. */
export function ancestors(name: string): string[] {
  const parts = name.split('.');
  return parts.map((_, i) => parts.slice(0, i).join('.'));
}

/** Bytes of every module and tensor. */
export function moduleSizes({ tensors }: ModuleTree): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const [name, bytes] of tensors)
    for (const part of [...ancestors(name), name]) sizes.set(part, (sizes.get(part) ?? 0) + bytes);
  return sizes;
}

const indexed = new WeakMap<ModuleTree, ReadonlyMap<string, readonly string[]>>();

/** What lies directly in each module: its tensors first, then its modules, as accelerate has them. */
function index(tree: ModuleTree): ReadonlyMap<string, readonly string[]> {
  let found = indexed.get(tree);
  if (!found) {
    const sets = new Map<string, Set<string>>();
    for (const name of tree.tensors.keys()) {
      const path = [...ancestors(name), name];
      for (const [i, child] of path.entries()) {
        if (i === 0) continue;
        const above = path[i - 1]!;
        if (!sets.has(above)) sets.set(above, new Set());
        sets.get(above)!.add(child);
      }
    }
    const isTensor = (name: string): boolean => tree.tensors.has(name);
    const sorted = [...sets].map(([module, set]) => {
      const all = [...set];
      return [module, [...all.filter(isTensor), ...all.filter((name) => !isTensor(name))]] as const;
    });
    indexed.set(tree, (found = new Map(sorted)));
  }
  return found;
}

/** What lies directly in a module. */
export function childrenOf(tree: ModuleTree, module: string): readonly string[] {
  return index(tree).get(module) ?? [];
}

/** Modules that have no other below them. */
export function lastModules(tree: ModuleTree): string[] {
  return [...index(tree)].filter(([, below]) => below.every((name) => tree.tensors.has(name))).map(([name]) => name);
}

/** Whether a module can lie on several devices. */
export function splits(tree: ModuleTree, name: string): boolean {
  return !tree.whole.has(name) && childrenOf(tree, name).some((child) => !tree.tensors.has(child));
}
