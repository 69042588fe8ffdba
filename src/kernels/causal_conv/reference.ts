/** The causal convolution and its gradients in float64 and plain loops: what its kernels are compared with. */
import type { ConvolutionSpec } from './spec.js';

export interface ConvolutionReferenceInputs {
  /** [b, t, d] */
  x: ArrayLike<number>;
  /** [d, k] */
  weight: ArrayLike<number>;
  /** [d] */
  bias: ArrayLike<number> | null;
  /** [b, k-1, d] */
  context: ArrayLike<number> | null;
  /** Gradient of y, [b, t, d] */
  dy: ArrayLike<number>;
}

/** y and the gradient of x, [b, t, d]; gradients of the weights, [d, k], and of the bias, [d]. */
export interface ConvolutionReference {
  y: Float64Array;
  dx: Float64Array;
  dWeight: Float64Array;
  dBias: Float64Array;
}

export function convolutionReference(
  { b, t, channels: d, taps: k }: Pick<ConvolutionSpec, 'b' | 't' | 'channels' | 'taps'>,
  { x, weight, bias, context, dy }: ConvolutionReferenceInputs,
): ConvolutionReference {
  const [y, dx] = [new Float64Array(b * t * d), new Float64Array(b * t * d)];
  const [dWeight, dBias] = [new Float64Array(d * k), new Float64Array(d)];
  for (let row = 0; row < b; row++)
    for (let at = 0; at < t; at++)
      for (let c = 0; c < d; c++) {
        const place = (row * t + at) * d + c;
        y[place]! += bias?.[c] ?? 0;
        dBias[c]! += dy[place]!;
        for (let i = 0; i < k; i++) {
          const source = at - (k - 1) + i;
          if (source >= 0) {
            const from = (row * t + source) * d + c;
            y[place]! += weight[c * k + i]! * x[from]!;
            dx[from]! += weight[c * k + i]! * dy[place]!;
            dWeight[c * k + i]! += dy[place]! * x[from]!;
          } else if (context) {
            y[place]! += weight[c * k + i]! * context[(row * (k - 1) + k - 1 + source) * d + c]!;
          }
        }
      }
  return { y, dx, dWeight, dBias };
}
