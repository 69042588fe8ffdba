/** A better range for an int4 group than from its least to its largest weight: least squared error, by search. */

const f = Math.fround;
/** Shares of the full range that are tried. */
const SHRINK = [1, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72] as const;

/**
 * Tries narrower ranges (weights beyond are clamped to the end levels), fits each level line by least squares to the
 * codes it gives, and returns the line of least error. Never worse than the full range.
 *
 * @param w weights; from..to is the group @param min its least @param scale (max-min)/15
 * @returns [least level, distance of levels]
 */
export function fitGroup(w: Float32Array, from: number, to: number, min: number, scale: number): [number, number] {
  if (!(scale > 1e-30)) return [min, scale];
  let best: [number, number] = [min, scale];
  let least = lineError(w, from, to, min, scale);
  const middle = min + 7.5 * scale;
  const n = to - from;
  for (const share of SHRINK) {
    let [low, step] = [middle - 7.5 * scale * share, scale * share];
    for (let round = 0; round < 2; round++) {
      let [q1, q2, w1, qw] = [0, 0, 0, 0];
      for (let i = from; i < to; i++) {
        const q = level((w[i]! - low) / step);
        q1 += q;
        q2 += q * q;
        w1 += w[i]!;
        qw += q * w[i]!;
      }
      const determinant = n * q2 - q1 * q1;
      if (!(determinant > 0)) break;
      const slope = (n * qw - q1 * w1) / determinant;
      if (!(slope > 1e-30)) break;
      [step, low] = [f(slope), f((w1 - slope * q1) / n)];
      const error = lineError(w, from, to, low, step);
      if (error < least) [least, best] = [error, [low, step]];
    }
  }
  return best;
}

function level(x: number): number {
  const q = Math.round(x);
  return q < 0 ? 0 : q > 15 ? 15 : q;
}

/** Σ (w - nearest level)² */
function lineError(w: Float32Array, from: number, to: number, low: number, step: number): number {
  let sum = 0;
  for (let i = from; i < to; i++) {
    const d = w[i]! - (low + level((w[i]! - low) / step) * step);
    sum += d * d;
  }
  return sum;
}
