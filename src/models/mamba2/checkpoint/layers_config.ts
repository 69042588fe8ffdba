/** The configuration of a TensorFlow.js LayersModel of Mamba-2's layers. */
import { CheckpointError } from '../../../base/errors.js';
import type { LayerJson } from '../../../checkpoints/model_format.js';

type Json = Record<string, unknown>;

/** Keys of a Mamba2Block's configuration that are Hugging Face's too. */
const BLOCK_KEYS = ['hidden_size', 'num_heads', 'head_dim', 'n_groups', 'state_size', 'conv_kernel', 'chunk_size', 'use_bias', 'use_conv_bias', 'norm_groups']; // prettier-ignore

/**
 * The Hugging Face configuration of a model that TensorFlow.js saved itself, read off its layers.
 * @param layers those of model.json's topology
 * @param file path of model.json, for the message
 * @throws CheckpointError when they are not a Mamba-2's
 */
export function layersConfig(layers: readonly LayerJson[], file: string): Json {
  const blocks = layers.filter(({ class_name: name }) => name === 'Mamba2Block');
  const embedding = layers.find(({ class_name: name }) => name === 'Mamba2TokenEmbedding');
  const block = blocks[0]?.config;
  if (!block || !embedding?.config)
    throw new CheckpointError(`${file} is no Mamba-2: it has no layers Mamba2TokenEmbedding and Mamba2Block.`, {
      file,
    });
  // TensorFlow.js writes infinities as null
  const limit: unknown = block.time_step_limit ?? [0, null];
  return {
    architectures: ['Mamba2ForCausalLM'],
    model_type: 'mamba2',
    ...Object.fromEntries(BLOCK_KEYS.filter((key) => key in block).map((key) => [key, block[key]])),
    expand: ((block.num_heads as number) * (block.head_dim as number)) / (block.hidden_size as number),
    layer_norm_epsilon: block.epsilon,
    num_hidden_layers: blocks.length,
    time_step_limit: Array.isArray(limit) ? limit.map((value: unknown) => value ?? Infinity) : limit,
    tie_word_embeddings: !layers.some(({ class_name: name }) => name === 'Mamba2LMHead'),
    vocab_size: embedding.config.vocab_size,
  };
}
