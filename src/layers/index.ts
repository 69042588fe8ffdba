/**
 * The layers of Mamba-2 as tf.layers custom layers, registered for serialisation, and the maths they share with the
 * compiled programs: einsum, the SSD chunk scan, norms, the causal convolution, the mixer and its block.
 */
export { einsum } from './einsum.js';
export * from './ssd.js';
export * from './weights.js';
export * from './rms_norm.js';
export * from './rms_norm_gated.js';
export * from './activations.js';
export * from './convolution.js';
export * from './causal_conv1d.js';
export * from './mixer_spec.js';
export * from './mixer.js';
export * from './block.js';
export * from './embedding.js';
export * from './cross_entropy.js';
export * from './storage.js';
