/** Mamba2Model: the backbone, without a head. */
import { NetworkWeights } from '../../engine/network_weights.js';
import { Backbone, type BackboneInputs, type BackboneOutputs } from '../backbone.js';
import { Mamba2Cache } from './cache.js';
import type { Mamba2Config } from './config.js';
import { Mamba2Network } from './network.js';

export type ModelInputs = BackboneInputs<Mamba2Cache>;
export type ModelOutputs = BackboneOutputs<Mamba2Cache>;

/**
 * The Mamba-2 backbone: embedding, blocks, final norm. Source: Hugging Face Mamba2Model.
 *
 * @example
 * const model = new Mamba2Model(new Mamba2Config({ hidden_size: 32, num_heads: 4, head_dim: 16, n_groups: 1, num_hidden_layers: 2 }));
 * const { last_hidden_state, cache } = model.forward({ input_ids: [[1, 2, 3]] }); // [1, 3, 32]
 */
export class Mamba2Model extends Backbone<Mamba2Network, Mamba2Cache> {
  /** With `weights` the model shares them (a causal model's backbone); without, it initialises its own. */
  constructor(config: Mamba2Config, weights?: NetworkWeights<Mamba2Network>) {
    super(weights ?? new NetworkWeights(new Mamba2Network(config), null));
  }

  protected override emptyCache(): Mamba2Cache {
    return Mamba2Cache.empty();
  }
}
