/** One adapter of a model: which modules it acts on, its variables, and its fresh values. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, ConfigError } from '../base/errors.js';
import type { RecurrentLM } from '../engine/recurrent_lm.js';
import { RandomStream } from '../generation/random.js';
import { isMatrix, isStored, type Weight, type Weights, type WeightSpec } from '../layers/index.js';
import type { LoraConfig } from './config.js';
import type { LowRank } from './matrix.js';
import { plain, quote } from '../base/quote.js';

/** Most elements of a factor. */
const MOST_ELEMENTS = 2 ** 28;

/** The kinds of modules that an adapter may act on. */
export type TargetKind = 'linear' | 'embedding' | 'head';

/** A module under an adapter. */
export interface AdaptedModule {
  /** For example 'backbone.layers.0.mixer.in_proj'. */
  module: string;
  kind: TargetKind;
  /** The weight that it acts on; a tied head acts on the embedding's. */
  weight: string;
  rank: number;
  scale: number;
  /** Keys of the two factors, PEFT's without its prefix. */
  keyA: string;
  keyB: string;
  shapeA: [number, number];
  shapeB: [number, number];
}

/** The module of a weight: its name without the last part. A_log, D and dt_bias belong to the mixer itself. */
function moduleOf(weight: string): string {
  return weight.slice(0, weight.lastIndexOf('.'));
}

const KINDS = { projection: 'linear', embedding: 'embedding', head: 'head' } as const;

const lastPart = (module: string): string => module.slice(module.lastIndexOf('.') + 1);

/** @returns how a module is adapted @throws ArgumentError for one that cannot be, with the reason */
function targetKind(module: string, spec: WeightSpec | undefined, all: readonly WeightSpec[]): TargetKind {
  if (spec && spec.role !== 'small') return KINDS[spec.role];
  if (spec?.shape.length === 3) {
    throw new ArgumentError(
      `LoRA: '${module}' is a depthwise convolution of a few taps per channel: a low-rank product has no place in it (PEFT refuses it too). Train it whole with modules_to_save: ['${lastPart(module)}'].`,
      { module },
    );
  }
  const names = [...new Set(all.filter(isMatrix).map(({ name }) => lastPart(moduleOf(name))))];
  throw new ArgumentError(
    `LoRA: '${module}' is not a linear map or an embedding; target ${names.slice(0, -1).join(', ')} or ${names.at(-1)}, or train it whole with modules_to_save.`,
    {
      module,
    },
  );
}

/** @throws ArgumentError when nothing matches, or a module that cannot be adapted does */
function adaptedModules(config: LoraConfig, weights: Weights, network: RecurrentLM): AdaptedModule[] {
  const { names } = network;
  const tied = network.config.tie_word_embeddings;
  const head = moduleOf(names.head);
  const modules = [...new Set(Object.keys(weights).map(moduleOf)), ...(tied ? [head] : [])];
  const byModule = new Map(network.weightSpecs().map((spec) => [spec.name.replace(/\.weight$/, ''), spec]));
  // a tied head has no matrix of its own
  if (tied) byModule.set(head, { ...byModule.get(moduleOf(names.embedding))!, name: names.head, role: 'head' });
  const found = modules.filter((module) => config.targets(module, byModule.get(module)?.role));
  if (found.length === 0) {
    throw new ArgumentError(
      `LoRA: target_modules ${quote(config.target_modules)} matches no module of this model; it has ${[...new Set(modules.map((m) => m.split('.').pop()!))].join(', ')}`,
      { target_modules: config.target_modules },
    );
  }
  return found.map((module) => {
    const kind = targetKind(module, byModule.get(module), [...byModule.values()]);
    const weight = kind === 'head' && tied ? names.embedding : `${module}.weight`;
    const [out, inner] = weights[weight]!.shape as [number, number];
    const rank = config.rank(module);
    if (rank * Math.max(out, inner) > MOST_ELEMENTS)
      throw new ArgumentError(
        `LoRA: a rank of ${rank} for '${module}' of shape [${out}, ${inner}] makes factors of more than ${MOST_ELEMENTS * 4} bytes; choose one below ${Math.min(out, inner)}.`,
        { option: 'r', got: rank },
      );
    const embedding = kind === 'embedding';
    return {
      module,
      kind,
      weight,
      rank,
      scale: config.scale(module),
      keyA: embedding ? `${module}.lora_embedding_A` : `${module}.lora_A.weight`,
      keyB: embedding ? `${module}.lora_embedding_B` : `${module}.lora_B.weight`,
      shapeA: embedding ? [rank, out] : [rank, inner],
      shapeB: embedding ? [inner, rank] : [out, rank],
    };
  });
}

/**
 * Whether a head that is tied to the embedding stays so while the embedding is trained whole. PEFT's ensure_weight_tying knows layers by
 * their usual names, of which a Mamba-2 has lm_head alone: without it among the modules the option says nothing.
 * @throws ArgumentError where it asks for low-rank factors that both share
 */
function staysTied(config: LoraConfig, network: RecurrentLM): boolean {
  if (!network.config.tie_word_embeddings || config.to_dict()['ensure_weight_tying'] !== true) return false;
  const head = moduleOf(network.names.head);
  if (config.trainsWhole(head)) return true;
  if (config.targets(head, 'head'))
    throw new ArgumentError(
      `LoRA: ensure_weight_tying with '${head}' among target_modules asks for factors that head and embedding share, which are read from PEFT's files and not trained here. Name embeddings alone, or train both whole: modules_to_save: ['embeddings', '${head}'].`,
      { option: 'ensure_weight_tying' },
    );
  return false;
}

/** Names of the weights that modules_to_save trains whole; a tied head is among them. @throws ArgumentError when a name matches nothing */
function savedWeights(config: LoraConfig, weights: Weights, network: RecurrentLM, stays: boolean): string[] {
  const wanted = config.modules_to_save ?? [];
  const { head, embedding } = network.names;
  const tied = network.config.tie_word_embeddings;
  const all = [...Object.keys(weights), ...(tied ? [head] : [])];
  const names = all.filter((weight) => config.trainsWhole(moduleOf(weight)));
  for (const name of wanted) {
    if (!names.some((weight) => `.${weight}`.includes(`.${name}.`)))
      throw new ArgumentError(`LoRA: modules_to_save names '${plain(name)}', which this model does not have`, {
        module: name,
      });
  }
  return stays ? [...new Set(names.map((name) => (name === head ? embedding : name)))] : names;
}

function uniform(random: RandomStream, size: number, bound: number): Float32Array {
  return Float32Array.from({ length: size }, () => (random.uniform() * 2 - 1) * bound);
}

function normal(random: RandomStream, size: number, deviation: number): Float32Array {
  return Float32Array.from(
    { length: size },
    () => Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform()) * deviation,
  );
}

/** Fresh factors of a module: their product is zero unless init_lora_weights is false. */
function freshFactors(
  config: LoraConfig,
  at: AdaptedModule,
  random: RandomStream,
): { A: Float32Array; B: Float32Array } {
  const size = (shape: readonly number[]): number => shape[0]! * shape[1]!;
  const init = config.init_lora_weights;
  if (at.kind === 'embedding') {
    return {
      A: init === false ? normal(random, size(at.shapeA), 1) : new Float32Array(size(at.shapeA)),
      B: normal(random, size(at.shapeB), 1),
    };
  }
  const A =
    init === 'gaussian'
      ? normal(random, size(at.shapeA), 1 / at.rank)
      : uniform(random, size(at.shapeA), 1 / Math.sqrt(at.shapeA[1]));
  const B =
    init === false ? uniform(random, size(at.shapeB), 1 / Math.sqrt(at.rank)) : new Float32Array(size(at.shapeB));
  return { A, B };
}

/** An adapter: its configuration and its variables, by PEFT's keys without the prefix `base_model.model.`. */
export class LoraAdapter {
  readonly modules: readonly AdaptedModule[];
  /** Weights trained whole, by their checkpoint name. */
  readonly saved: readonly string[];
  /** Whether a tied head follows the embedding that is trained whole; as in PEFT it does not by itself. */
  readonly stays_tied: boolean;
  readonly variables = new Map<string, tf.Variable>();
  private readonly embedding: string;
  private readonly own: Weights;

  /** @param values given values; a missing key is fresh @throws ConfigError when a given value has another shape */
  constructor(
    readonly config: LoraConfig,
    weights: Weights,
    network: RecurrentLM,
    seed: number,
    values?: ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>,
  ) {
    this.embedding = network.names.embedding;
    this.own = weights;
    this.stays_tied = staysTied(config, network);
    this.modules = adaptedModules(config, weights, network);
    this.saved = savedWeights(config, weights, network, this.stays_tied);
    const add = (key: string, shape: readonly number[], fresh: () => tf.Tensor): void => {
      const given = values?.get(key);
      if (given && given.shape.join() !== shape.join()) {
        throw new ConfigError(
          `Adapter tensor '${key}' has shape [${given.shape}], expected [${shape}]; is the adapter for another model or rank?`,
          {
            key,
            got: given.shape,
            expected: shape,
          },
        );
      }
      this.variables.set(
        key,
        tf.tidy(() => tf.variable(given ? tf.tensor(given.data, [...shape]) : fresh(), true)),
      );
    };
    try {
      this.modules.forEach((at, i) => {
        let made: { A: Float32Array; B: Float32Array } | null = null;
        const fresh = () => (made ??= freshFactors(config, at, new RandomStream(seed, i)));
        add(at.keyA, at.shapeA, () => tf.tensor(fresh().A, at.shapeA));
        add(at.keyB, at.shapeB, () => tf.tensor(fresh().B, at.shapeB));
      });
      for (const name of this.saved) {
        const weight: Weight = weights[name] ?? weights[this.embedding]!; // a tied head has no weight of its own
        if (isStored(weight))
          throw new ConfigError(
            `modules_to_save: '${plain(name)}' is quantised and cannot be trained; load the base in float32`,
            { name },
          );
        add(name, weight.shape, () => tf.clone(weight));
      }
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** The weight of the network that a variable is, or acts on. */
  weightOf(key: string): string {
    const module = this.modules.find(({ keyA, keyB }) => key === keyA || key === keyB);
    return module?.weight ?? (key in this.own ? key : this.embedding);
  }

  /** The factors of one module among given tensors. */
  lowRank(at: AdaptedModule, tensors: Readonly<Record<string, tf.Tensor>>): LowRank {
    return {
      A: tensors[at.keyA] as tf.Tensor2D,
      B: tensors[at.keyB] as tf.Tensor2D,
      scale: at.scale,
      dropout: at.kind === 'embedding' ? 0 : this.config.lora_dropout,
    };
  }

  dispose(): void {
    for (const variable of this.variables.values()) variable.dispose();
    this.variables.clear();
  }
}
