/** A model in parts on several devices of one process: which of its modules lie where, and in which parts its layers run. */
import type { RecurrentLM } from '../recurrent_lm.js';
import { moduleOf, moduleOfTensor } from './modules.js';

/** Layers that run one after another on one device. */
export interface LayerRun {
  /** Its place in Division.devices. */
  readonly device: number;
  /** The first layer, and the one after the last. */
  readonly from: number;
  readonly to: number;
}

/** Numbers of devices are places in `devices`. */
export interface Division {
  /** Numbers that TensorFlow gives the devices of its kind, GPUs or, without any, logical devices of the processor. */
  readonly devices: readonly number[];
  readonly embedding: number;
  readonly runs: readonly LayerRun[];
  /** Of the final norm. */
  readonly norm: number;
  readonly head: number;
}

/** Modules of a network by what they do. */
export interface ModuleRoles {
  readonly embedding: string;
  readonly layers: readonly string[];
  /** What comes between the last layer and the head. */
  readonly norms: readonly string[];
  readonly head: string;
}

export function moduleRoles(network: RecurrentLM): ModuleRoles {
  const { names } = network;
  const [embedding, head] = [moduleOfTensor(names.embedding), moduleOfTensor(names.head)];
  const others = network.namedLayers().map(({ prefix }) => moduleOf(prefix)).filter((name) => name !== embedding && name !== head); // prettier-ignore
  const layers = others.filter((name) => /\.\d+$/.test(name));
  return { embedding, layers, norms: others.filter((name) => !layers.includes(name)), head };
}

/** @param deviceOf the number of a module's device */
export function divisionOf(roles: ModuleRoles, deviceOf: (module: string) => number): Division {
  const { embedding, layers, norms, head } = roles;
  const order = [embedding, ...layers, ...norms, head].map(deviceOf);
  const devices = [...new Set(order)].sort((a, b) => a - b);
  const at = (module: string): number => devices.indexOf(deviceOf(module));
  const runs: LayerRun[] = [];
  for (const [i, layer] of layers.entries()) {
    const last = runs.at(-1);
    if (last?.device === at(layer)) runs.splice(-1, 1, { ...last, to: i + 1 });
    else runs.push({ device: at(layer), from: i, to: i + 1 });
  }
  return { devices, embedding: at(embedding), runs, norm: at(norms[0] ?? head), head: at(head) };
}
