/** Pieces of WGSL that several kernels have. */

/** The number of a binding by its name. */
export type NameAt = (name: string) => number;

export function numbered(names: readonly string[]): NameAt {
  return (name) => names.indexOf(name);
}

/** Values that a thread sums at a time. */
const STEP = 8;

/** Workgroup memory of folded(): `partial`, which the kernel fills, `eighths`, and the sums in `sum`. */
export function foldedArrays(rows: number, width: number): string {
  return `var<workgroup> partial: array<f32, ${rows * width}>;
var<workgroup> eighths: array<f32, ${(rows * width) / STEP}>;
var<workgroup> sum: array<f32, ${rows}>;`;
}

/** Bytes that these take. */
export function foldedBytes(rows: number, width: number): number {
  return 4 * rows * (width + width / STEP + 1);
}

/**
 * Sums partial [rows, width] over the width into `sum` [rows]; all threads of a workgroup (at least as many as rows) come here, and see it after.
 * @param width a multiple of eight
 */
export function folded(rows: number, width: number, threads = width): string {
  const eighths = width / STEP;
  return `    workgroupBarrier();
    for (var i = lane; i < ${rows * eighths}u; i += ${threads}u) {
      var eight = 0.0;
      for (var j = 0u; j < ${STEP}u; j++) { eight += partial[${STEP}u * i + j]; }
      eighths[i] = eight;
    }
    workgroupBarrier();
    for (var i = lane; i < ${rows}u; i += ${threads}u) {
      var whole = 0.0;
      for (var j = 0u; j < ${eighths}u; j++) { whole += eighths[i * ${eighths}u + j]; }
      sum[i] = whole;
    }
    workgroupBarrier();`;
}

/** x·sigmoid(x). What is beyond 80 is cut, since WGSL need not know infinities: the result is 0 there, as near as float32 can tell. */
export const SILU = `fn silu(x: f32) -> f32 { return x / (1.0 + exp(min(-x, 80.0))); }
`;

/** log(1 + exp(x)). log(1 + e) itself loses what is small beside 1: the series of 2·atanh(e / (2 + e)) does not, and e is 1 at most. */
export const SOFTPLUS = `fn softplus(x: f32) -> f32 {
  let e = exp(-min(abs(x), 80.0));
  let s = e / (2.0 + e);
  let q = s * s;
  let series = 1.0 + q * (1.0 / 3.0 + q * (0.2 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q * (1.0 / 13.0 + q / 15.0))))));
  return max(x, 0.0) + 2.0 * s * series;
}
`;
