/** A model over several devices as functions of its parts see it: embedding, runs of layers, norm and head where a division says, with weights and states. */
import type * as tf from '@tensorflow/tfjs';
import type { Pieces } from '../../base/pieces.js';
import { outlineBorder } from '../../jit/index.js';
import type { PlacedProgram } from '../../jit/program/placed.js';
import type { WeightStorage } from '../../layers/storage.js';
import type { Weights } from '../../layers/weights.js';
import type { NetworkWeights } from '../network_weights.js';
import { type Division, moduleRoles } from '../placement/division.js';
import { hiddenOf, type LayerState } from '../recurrent_lm.js';
import type { DecodingProgramOptions } from './decoding_program.js';
import { placedStates } from './divided_states.js';
import { stateAccess, type StateDtype } from './program_states.js';
import { storageOf, traced } from './program_weights.js';

export type Tensors = Record<string, tf.Tensor>;

/** Steps of the model that follow one another on a device. */
export interface Stretch {
  device: number;
  embeds: boolean;
  runs: Division['runs'];
  norms: boolean;
  heads: boolean;
}

/** The model as stretches, in the order in which they run. */
export function stretchesOf({ embedding, runs, norm, head }: Division): Stretch[] {
  const all: Stretch[] = [];
  const on = (device: number): Stretch => {
    const last = all.at(-1);
    if (last?.device === device) return last;
    const next: Stretch = { device, embeds: false, runs: [], norms: false, heads: false };
    all.push(next);
    return next;
  };
  on(embedding).embeds = true;
  for (const run of runs) {
    const stretch = on(run.device);
    stretch.runs = [...stretch.runs, run];
  }
  on(norm).norms = true;
  on(head).heads = true;
  return all;
}

/** In a tied model whose head is not where the embedding is, the matrix lies on both devices. */
const HEAD_COPY = 'head/';

/** How layers are run. */
export interface LayersRun {
  /** What blocks are given. */
  readonly run: Record<string, unknown>;
  /** The final norm is left to whoever comes after. */
  readonly withoutNorm?: boolean;
  /** Layers become functions of their own, equal ones the same. */
  readonly outlined: boolean;
}

/** See the file. */
export class DividedModel {
  readonly stretches: readonly Stretch[];
  /** How weights are stored, and where they lie. */
  private readonly storages = new Map<string, { storage: WeightStorage; device: number }>();
  private readonly dtype: StateDtype;

  constructor(
    private readonly weights: NetworkWeights,
    private readonly options: DecodingProgramOptions,
    readonly division: Division,
  ) {
    this.dtype = options.stateDtype ?? 'float32';
    this.stretches = stretchesOf(division);
  }

  get network(): NetworkWeights['network'] {
    return this.weights.network;
  }

  /** Whether matrices are bfloat16. */
  get bfloat16(): boolean {
    return [...this.storages.values()].some(({ storage }) => storage.variables['']?.dtype === 'bfloat16');
  }

  declareWeights(program: PlacedProgram): void {
    const { network } = this.weights;
    const { division } = this;
    const roles = moduleRoles(network);
    const inModule = (name: string, module: string): boolean => name.startsWith(`${module}.`);
    const deviceOf = (name: string): number => {
      if (inModule(name, roles.embedding)) return division.embedding;
      if (inModule(name, roles.head)) return division.head;
      const layer = roles.layers.findIndex((module) => inModule(name, module));
      return layer < 0 ? division.norm : division.runs.find(({ to }) => layer < to)!.device;
    };
    for (const spec of network.weightSpecs()) {
      const storage = this.weights.storage(spec, (s) =>
        storageOf(this.weights, s, this.options.dtype, this.options.roundedRows),
      );
      this.storages.set(spec.name, { storage, device: deviceOf(spec.name) });
    }
    const { embedding } = network.names;
    if (network.config.tie_word_embeddings && division.embedding !== division.head)
      this.storages.set(HEAD_COPY + embedding, { storage: this.storages.get(embedding)!.storage, device: division.head }); // prettier-ignore
    for (const [name, { storage, device }] of this.storages)
      for (const [suffix, variable] of Object.entries(storage.variables))
        program.variable(name + suffix, variable, device);
  }

  /** Variables of the states of b rows, and the device of each. */
  states(b: number, place: string): ReturnType<typeof placedStates> {
    return placedStates(this.network, this.division, b, this.dtype, place);
  }

  /** Weights of a device by the network's names. */
  of(device: number, vars: Tensors): Weights {
    const own = [...this.storages].filter(([, one]) => one.device === device);
    const record = traced(new Map(own.map(([name, { storage }]) => [name, storage])), new Map(), vars);
    const copy = own.find(([name]) => name.startsWith(HEAD_COPY))?.[0];
    return copy === undefined ? record : { ...record, [copy.slice(HEAD_COPY.length)]: record[copy]! };
  }

  /**
   * The runs of a stretch, and the norm where it is part of it.
   * @param h [b, t, d]
   */
  *layers(
    { device, runs, norms }: Stretch,
    b: number,
    place: string,
    vars: Tensors,
    h: tf.Tensor3D,
    { run, withoutNorm = false, outlined }: LayersRun,
  ): Pieces<{ h: tf.Tensor3D; assign: Tensors; handover: unknown }> {
    const { network } = this;
    const w = this.of(device, vars);
    const all = network.config.num_hidden_layers;
    let assign: Tensors = {};
    let handover: unknown;
    let normed = false;
    for (const { from, to } of runs) {
      const access = stateAccess(network, b, this.dtype, place, { from, to });
      const states: readonly LayerState[] = access.read(vars);
      const norm = to === all && norms && !withoutNorm;
      const out = yield* hiddenOf(network, w, h, {
        ...run,
        states,
        layers: [from, to],
        ...(outlined && { between: outlineBorder }),
        withoutNorm: !norm,
      });
      h = out.h;
      handover = out.handover;
      normed ||= norm;
      assign = { ...assign, ...access.assign(out.states) };
    }
    if (norms && !withoutNorm && !normed) h = (yield* hiddenOf(network, w, h, { layers: [all, all] })).h;
    return { h, assign, handover };
  }
}
