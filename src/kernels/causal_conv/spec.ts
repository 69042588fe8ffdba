/** The causal convolution of many tokens, and its gradients, as kernels of our own: sizes, and how the work is shared out. */

/** Sizes: channels `first` … of rows of `width`, as an input projection has them. */
export interface ConvolutionSpec {
  b: number;
  t: number;
  /** Channels, d. */
  channels: number;
  /** k */
  taps: number;
  width: number;
  first: number;
  bias: boolean;
  /** There are k-1 inputs before the first token; zeros otherwise. */
  context: boolean;
}

/** Tokens that are worked on together. */
export const TILE = 16;
/** Tiles whose products a program of the weights' gradient adds up. */
export const TILES = 16;

/** Whether the kernels can be written for these sizes. */
export function convolutionFits({ b, t, channels, taps, width, first }: ConvolutionSpec): boolean {
  const aligned = channels % 32 === 0 && width % 8 === 0 && first % 8 === 0;
  return aligned && taps > 1 && taps <= 8 && t >= TILE && b * t * Math.max(width, channels) < 2 ** 31;
}

/** Programs of a channel in convolutionWeightGradient. */
export function weightGradientParts({ b, t }: ConvolutionSpec): number {
  return b * Math.ceil(t / (TILE * TILES));
}
