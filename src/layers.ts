/** `tfjs-mamba2/layers`: the layers of Mamba-2 as tf.layers layers, and the functions of tensors that they are made of. */
import './runtime/file_handler.js';
import './runtime/other_copies.js';

export {
  CausalConv1D,
  type CausalConv1DArgs,
  LMHead,
  Mamba2Block,
  Mamba2Mixer,
  type Mamba2MixerArgs,
  type NormGroups,
  RMSNorm,
  type RMSNormArgs,
  RMSNormGated,
  type RMSNormGatedArgs,
  TokenEmbedding,
  type TokenEmbeddingArgs,
} from './layers/index.js';
export {
  causalConv,
  einsum,
  rmsNorm,
  rmsNormGated,
  silu,
  ssdChunkScan,
  type SsdInputs,
  type SsdOutputs,
  ssdStep,
  type SsdStepInputs,
} from './layers/index.js';
