/**
 * A second architecture, small enough to read at once: s_t = a_t·s_{t-1} + (1 - a_t)·v_t with a gate a_t = sigmoid(W_a·x_t + b),
 * values v_t = W_v·x_t and a residual block h + W_o·s. What runs Mamba-2 runs it too: it is a RecurrentLM.
 */
import * as tf from '@tensorflow/tfjs';
import type {
  BlockRun,
  Hidden,
  HiddenOptions,
  LayerState,
  LMConfig,
  NamedLayer,
  RecurrentLM,
  StateSpec,
} from '../../src/engine/recurrent_lm.js';
import { single, SpecLayer } from '../../src/layers/base.js';
import { LMHead, TokenEmbedding } from '../../src/layers/embedding.js';
import { RMSNorm, rmsNorm } from '../../src/layers/rms_norm.js';
import { linear, tensor, type Weight, type Weights, type WeightSpec } from '../../src/layers/weights.js';

export const EPSILON = 1e-5;

export class GatedConfig implements LMConfig {
  readonly model_type = 'gated_recurrence';
  readonly vocab_size: number = 23;
  readonly hidden_size: number = 12;
  readonly num_hidden_layers: number = 2;
  readonly tie_word_embeddings: boolean = true;
  readonly pad_token_id: number | null = 0;
  readonly eos_token_id: number | null = null;
  readonly use_cache: boolean = true;
  constructor(values: Readonly<Record<string, unknown>> = {}) {
    Object.assign(this, values);
  }
  to_dict(): Record<string, unknown> {
    return Object.fromEntries(Object.entries(this));
  }
}

/** Weights below a prefix, without it. */
const below = (weights: Weights, prefix: string): Weights =>
  Object.fromEntries(
    Object.entries(weights).flatMap(([name, w]): [string, Weight][] =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), w]] : [],
    ),
  );

class GatedBlock extends SpecLayer {
  /** @nocollapse */
  static className = 'GatedBlock';
  constructor(private readonly args: { size: number; name: string }) {
    super({ name: args.name });
  }
  protected override weightSpecs(): WeightSpec[] {
    const { size: d } = this.args;
    const matrix = { shape: [d, d], role: 'projection', init: { kind: 'normal', std: 0.5 } } as const;
    return [
      { name: 'norm.weight', shape: [d], role: 'small', init: { kind: 'ones' } },
      {
        name: 'gate_proj.bias',
        shape: [d],
        role: 'small',
        init: { kind: 'values', values: (n) => new Float32Array(n).fill(1) },
      },
      ...['gate_proj', 'value_proj', 'out_proj'].map((name): WeightSpec => ({
        ...matrix,
        name: `${name}.weight`,
        shape: [d, d],
      })),
    ];
  }
  forward(
    h: tf.Tensor3D,
    w: Weights,
    { mask, segments }: HiddenOptions,
    before?: LayerState,
  ): { y: tf.Tensor3D; state: LayerState } {
    const [b, t, d] = h.shape;
    const [y, s] = tf.tidy((): [tf.Tensor3D, tf.Tensor] => {
      const x = rmsNorm(h, tensor(w, 'norm.weight'), EPSILON);
      const gates = tf.unstack(tf.sigmoid(linear(x, w['gate_proj.weight']!, tensor(w, 'gate_proj.bias'))), 1); // t of [b, d]
      const values = tf.unstack(linear(x, w['value_proj.weight']!), 1);
      const real = mask && tf.unstack(tf.reshape(mask, [b, t, 1]), 1);
      const document = segments && tf.unstack(tf.reshape(tf.cast(segments, 'float32'), [b, t, 1]), 1);
      let state: tf.Tensor = before?.values['s'] ?? tf.zeros([b, d]);
      const states = gates.map((gate, i) => {
        // a new document begins from zeros
        if (document && i > 0) state = tf.mul(state, tf.cast(tf.equal(document[i]!, document[i - 1]!), 'float32'));
        const next = tf.add(tf.mul(gate, state), tf.mul(tf.sub(1, gate), values[i]!));
        // a masked position keeps the state
        state = real ? tf.add(tf.mul(next, real[i]!), tf.mul(state, tf.sub(1, real[i]!))) : next;
        return state;
      });
      return [tf.add(h, linear(tf.stack(states, 1), w['out_proj.weight']!)), tf.clone(state)];
    });
    return { y, state: { values: { s } } };
  }
  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    return tf.tidy(() => this.forward(single(inputs) as tf.Tensor3D, this.weightMap(), {}).y);
  }
}

export class GatedNetwork implements RecurrentLM<GatedConfig> {
  readonly name = 'gated';
  readonly names = { embedding: 'tokens.weight', head: 'scores.weight' };
  private readonly tokens: TokenEmbedding;
  private readonly blocks: readonly GatedBlock[];
  private readonly norm: RMSNorm;
  private readonly scores: LMHead | null;

  constructor(readonly config = new GatedConfig()) {
    const { vocab_size: vocabSize, hidden_size: hiddenSize } = config;
    const sizes = { vocabSize, hiddenSize, initializerRange: 0.5 };
    this.tokens = new TokenEmbedding({ ...sizes, name: 'tokens' });
    this.blocks = Array.from(
      { length: config.num_hidden_layers },
      (_, i) => new GatedBlock({ size: hiddenSize, name: `gated.${i}` }),
    );
    this.norm = new RMSNorm({ size: hiddenSize, epsilon: EPSILON, name: 'norm' });
    this.scores = config.tie_word_embeddings ? null : new LMHead({ ...sizes, name: 'scores' });
  }
  namedLayers(): NamedLayer[] {
    const blocks = this.blocks.map((layer, i) => ({ prefix: `gated.${i}.`, layer }));
    const ends = [
      { prefix: 'norm.', layer: this.norm },
      ...(this.scores ? [{ prefix: 'scores.', layer: this.scores }] : []),
    ];
    return [{ prefix: 'tokens.', layer: this.tokens }, ...blocks, ...ends];
  }
  weightSpecs(): WeightSpec[] {
    return this.namedLayers().flatMap(({ prefix, layer }) =>
      layer.specs().map((spec) => ({ ...spec, name: prefix + spec.name })),
    );
  }
  stateSpecs(): StateSpec[] {
    return [{ name: 's', shape: [this.config.hidden_size], keptPer: 'layer', bfloat16: true }];
  }
  fingerprint(): Record<string, string> {
    const { model_type, hidden_size, num_hidden_layers, vocab_size } = this.config;
    return { model_type, sizes: [num_hidden_layers, hidden_size, vocab_size].join() };
  }
  withConfig(changes: Readonly<Record<string, unknown>>): GatedNetwork {
    return new GatedNetwork(new GatedConfig({ ...this.config, ...changes }));
  }
  connect(ids: tf.SymbolicTensor): { hidden: tf.SymbolicTensor; logits: tf.SymbolicTensor } {
    const [tokens, ...rest] = [this.tokens, ...this.blocks, this.norm];
    const hidden = rest.reduce(
      (h, layer) => layer.apply(h) as tf.SymbolicTensor,
      tokens.apply(ids) as tf.SymbolicTensor,
    );
    return { hidden, logits: (this.scores ?? this.tokens).apply(hidden) as tf.SymbolicTensor };
  }
  embed(weights: Weights, ids: tf.Tensor2D): tf.Tensor3D {
    return this.tokens.forward(ids, below(weights, 'tokens.')) as tf.Tensor3D;
  }
  hidden(weights: Weights, embedded: tf.Tensor3D, options: HiddenOptions = {}): Hidden {
    const { between, onBlock, aroundBlock } = options;
    const states: LayerState[] = [];
    let h = embedded;
    const [from, to] = options.layers ?? [0, this.blocks.length];
    this.blocks.forEach((block, i) => {
      if (i < from || i >= to) return;
      const prefix = `gated.${i}.`;
      const run: BlockRun = (x, all) => {
        const { y, state } = block.forward(x, below(all, prefix), options, options.states?.[i]);
        if (!aroundBlock) states.push(state);
        return y;
      };
      if (between) h = between(h);
      h = aroundBlock ? aroundBlock(run, h, prefix) : run(h, weights);
      onBlock?.(h, i);
    });
    if (between) h = between(h);
    return { h: options.withoutNorm || to < this.blocks.length ? h : this.normed(weights, h), states };
  }
  head(weights: Weights, h: tf.Tensor): tf.Tensor {
    return linear(h, weights[this.scores ? 'scores.weight' : 'tokens.weight']!);
  }
  normedHead(weights: Weights, h: tf.Tensor2D): tf.Tensor2D {
    return this.head(weights, this.normed(weights, h)) as tf.Tensor2D;
  }
  private normed<T extends tf.Tensor>(weights: Weights, h: T): T {
    return this.norm.forward(h, below(weights, 'norm.')) as T;
  }
}
