/**
 * What is between the two projections of a decoding step, in WGSL: the convolution with its SiLU, then the recurrence with skip and gate. Contexts and
 * states are moved on where they lie, unless the step is switched off.
 */
import { control } from './control.js';
import type { WgslKernel } from './gpu.js';
import { folded, foldedArrays, numbered, SILU, SOFTPLUS } from './text.js';

export interface RecurrenceSpec {
  readonly heads: number;
  readonly headDim: number;
  /** Heads of a group share B and C. */
  readonly groups: number;
  readonly stateSize: number;
  readonly taps: number;
  readonly convolutionBias: boolean;
  /** Least and largest step size. */
  readonly limit: readonly [number, number];
}

/** Channels of x, of all that is convolved (x | B | C), and of what is projected (z | xBC | dt). */
export function widths({
  heads,
  headDim,
  groups,
  stateSize,
}: RecurrenceSpec): Record<'inner' | 'channels' | 'width', number> {
  const inner = heads * headDim;
  const channels = inner + 2 * groups * stateSize;
  return { inner, channels, width: inner + channels + heads };
}

const THREADS = 64;

/**
 * Bindings, those with a batch for each of its rows: projected [batch, z | xBC | dt], context [batch, taps-1, channels], taps [channels, taps],
 * bias [channels], convolved [batch, channels], control.
 */
export function convolutionKernel(spec: RecurrenceSpec, batch = 1): WgslKernel {
  const { taps, convolutionBias } = spec;
  const { inner, channels, width } = widths(spec);
  const past = taps > 1;
  const bindings = [
    ...['projected', past && 'context', 'taps', convolutionBias && 'bias', 'convolved', past && 'control'],
  ].filter((name): name is string => typeof name === 'string');
  const at = numbered(bindings);
  const code = `@group(0) @binding(${at('projected')}) var<storage, read> projected: array<f32>;
${past ? `@group(0) @binding(${at('context')}) var<storage, read_write> context: array<f32>;` : ''}
@group(0) @binding(${at('taps')}) var<storage, read> taps: array<f32>;
${convolutionBias ? `@group(0) @binding(${at('bias')}) var<storage, read> bias: array<f32>;` : ''}
@group(0) @binding(${at('convolved')}) var<storage, read_write> convolved: array<f32>;
${past ? `@group(0) @binding(${at('control')}) var<storage, read> control: array<u32>;` : ''}
${SILU}
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= ${channels}u) { return; }
  let old = id.y * ${(taps - 1) * channels}u + c;
  let newest = projected[id.y * ${width}u + ${inner}u + c];
  var sum = ${convolutionBias ? 'bias[c]' : '0.0'};
${Array.from({ length: taps - 1 }, (_, i) => `  let past${i} = context[old + ${i * channels}u];\n  sum += past${i} * taps[c * ${taps}u + ${i}u];`).join('\n')}
  sum += newest * taps[c * ${taps}u + ${taps - 1}u];
  convolved[id.y * ${channels}u + c] = silu(sum);
${past ? `  if (${control('moves', 'id.y')} == 0u) { return; }` : ''}
${Array.from({ length: taps - 1 }, (_, i) => `  context[old + ${i * channels}u] = ${i + 2 < taps ? `past${i + 1}` : 'newest'};`).join('\n')}
}
`;
  return { code, bindings, workgroups: Math.ceil(channels / THREADS), times: batch };
}

/** Rows of a state that a workgroup moves on, and threads for each: a matter of speed only. */
export interface RecurrenceTiling {
  readonly rows: number;
  /** A multiple of eight. */
  readonly width: number;
}

export function recurrenceTiling({ stateSize }: RecurrenceSpec): RecurrenceTiling {
  const width = Math.min(32, 8 * Math.ceil(stateSize / (stateSize % 4 === 0 ? 32 : 8)));
  return { rows: Math.max(1, Math.floor(128 / width)), width };
}

/**
 * Bindings: projected [batch, z | xBC | dt], convolved [batch, x | B | C], heads [3, heads] of dt_bias, A_log and D,
 * state [batch, heads, headDim, stateSize], gated [batch, heads·headDim], control.
 */
export function recurrenceKernel(
  spec: RecurrenceSpec,
  batch = 1,
  { rows, width } = recurrenceTiling(spec),
): WgslKernel {
  const { heads, headDim, groups, stateSize, limit } = spec;
  const { inner, channels, width: projectedRow } = widths(spec);
  const bindings = ['projected', 'convolved', 'heads', 'state', 'gated', 'control'];
  const at = numbered(bindings);
  const [four, type] = stateSize % 4 === 0 ? [4, 'vec4<f32>'] : [1, 'f32'];
  const blocks = Math.ceil(headDim / rows);
  const [first, second] = [inner / four, (inner + groups * stateSize) / four];
  // B and C in fours lie on whole fours where x does
  const wide = four === 1 || inner % 4 === 0;
  const read = (from: number): string =>
    wide
      ? `convolved[own + ${from}u + group * ${stateSize / four}u + i]`
      : `vec4<f32>(${[0, 1, 2, 3].map((j) => `convolved[own + ${from * four}u + group * ${stateSize}u + 4u * i + ${j}u]`).join(', ')})`;
  const narrow = (index: string): string =>
    wide && four === 4 ? `convolved[own + (${index}) / 4u][(${index}) % 4u]` : `convolved[own + ${index}]`;
  const code = `@group(0) @binding(${at('projected')}) var<storage, read> projected: array<f32>;
@group(0) @binding(${at('convolved')}) var<storage, read> convolved: array<${wide ? type : 'f32'}>;
@group(0) @binding(${at('heads')}) var<storage, read> heads: array<f32>;
@group(0) @binding(${at('state')}) var<storage, read_write> state: array<${type}>;
@group(0) @binding(${at('gated')}) var<storage, read_write> gated: array<f32>;
@group(0) @binding(${at('control')}) var<storage, read> control: array<u32>;
${SILU}${SOFTPLUS}${foldedArrays(rows, width)}
@compute @workgroup_size(${rows * width})
fn main(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  // where the rows of this text begin
  let text = block.y * ${projectedRow}u;
  let own = block.y * ${wide && four === 4 ? channels / 4 : channels}u;
  let head = block.x / ${blocks}u;
  let group = head / ${heads / groups}u;
  let p = (block.x % ${blocks}u) * ${rows}u + lane / ${width}u;
  let step = softplus(projected[text + ${inner + channels}u + head] + heads[head]);
  let dt = ${clamped('step', limit)};
  let decay = exp(-exp(heads[${heads}u + head]) * dt);
  var y = ${four === 4 ? 'vec4<f32>()' : '0.0'};
  if (p < ${headDim}u) {
    let row = head * ${headDim}u + p;
    let scaled = ${narrow('row')} * dt;
    for (var i = lane % ${width}u; i < ${stateSize / four}u; i += ${width}u) {
      let place = (block.y * ${inner}u + row) * ${stateSize / four}u + i;
      let next = state[place] * decay + scaled * ${read(first)};
      y += next * ${read(second)};
      if (${control('moves', 'block.y')} == 1u) { state[place] = next; }
    }
  }
  partial[lane] = ${four === 4 ? 'y.x + y.y + y.z + y.w' : 'y'};
${folded(rows, width, rows * width)}
  let done = (block.x % ${blocks}u) * ${rows}u + lane;
  if (lane < ${rows}u && done < ${headDim}u) {
    let row = head * ${headDim}u + done;
    let skipped = sum[lane] + ${narrow('row')} * heads[${2 * heads}u + head];
    gated[block.y * ${inner}u + row] = skipped * silu(projected[text + row]);
  }
}
`;
  return { code, bindings, workgroups: heads * blocks, times: batch };
}

/** A step size within its limits; WGSL has no infinity to compare with. */
function clamped(value: string, [low, high]: readonly [number, number]): string {
  const least = low > 0 ? `max(${value}, ${literal(low)})` : value;
  return Number.isFinite(high) ? `min(${least}, ${literal(high)})` : least;
}

/** A number as float32 in WGSL. */
const literal = (value: number): string => `f32(${value})`;
