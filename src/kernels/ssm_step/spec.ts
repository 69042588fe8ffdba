/** The recurrence of a decoding step of several rows as a kernel of our own: its sizes, parameters, and how it is shared out. */
import type { Dtype } from '../../jit/types.js';
import { fitsShared, type SharedArrays } from '../shared_memory.js';

/** Rows of a tensor, [rows, stride], of which some columns are meant. */
export interface Columns {
  stride: number;
  /** First of them. */
  offset: number;
}

export interface SsmStepSpec {
  rows: number;
  heads: number;
  /** p */
  headDim: number;
  groups: number;
  /** n */
  stateSize: number;
  /** Stored type of the state [rows, heads, p, n]. */
  dtype: 'float32' | 'bfloat16';
  /** x | B | C | dt | decay: [heads·p], [groups·n] twice, [heads] twice. */
  step: Columns;
  /** z [heads·p], or SiLU of it. */
  gate: Columns & { activated: boolean };
  /**
   * What the kernel gives for v = (y + D·x)·silu(z). Without a norm, v [rows, heads·p] in float32. With one, v·gamma in bfloat16, as
   * [heads·p/32, rows, 32] ('blocked') or [rows, heads·p] ('row_major'), and sums of the squares of v, [rows, ssmStepBlocks()], whose sum over a row is that of the row.
   */
  norm: 'blocked' | 'row_major' | null;
}

/** How a state lies in memory, [rows, n], and how much of it a warp holds. */
export interface StateTileSpec {
  /** n */
  stateSize: number;
  dtype: 'float32' | 'bfloat16';
  /** Reads of 16 bytes that each lane has under way. */
  loads: number;
}

/** Elements in 16 bytes. */
export const perLane = ({ dtype }: StateTileSpec): number => (dtype === 'bfloat16' ? 8 : 4);

/** Rows of a state that a warp holds; 0 where it cannot be. */
export function stateTileRows(spec: StateTileSpec): number {
  const lanes = spec.stateSize / perLane(spec);
  const power = lanes >= 1 && (lanes & (lanes - 1)) === 0;
  const loads = spec.loads >= 1 && (spec.loads & (spec.loads - 1)) === 0;
  return power && loads && lanes <= 32 && spec.loads <= lanes ? (spec.loads * 32) / lanes : 0;
}

/** How the work is shared out: a matter of speed only. */
export interface SsmStepTiling {
  warps: number;
  /** See StateTileSpec. */
  loads: number;
}

/** Pieces that were fastest on an H100. */
export function ssmStepTiling({ heads, headDim, dtype, stateSize }: SsmStepSpec): SsmStepTiling {
  let loads = 8;
  while (loads > 1 && headDim % stateTileRows({ stateSize, dtype, loads }) !== 0) loads /= 2;
  const each = headDim / stateTileRows({ stateSize, dtype, loads });
  let warps = Math.max(each, 4);
  while (warps > each && (heads * each) % warps !== 0) warps /= 2;
  return { warps, loads };
}

/** Warps that share a head; 0 where they cannot. */
export function warpsOfHead({ headDim, dtype, stateSize }: SsmStepSpec, { warps, loads }: SsmStepTiling): number {
  const count = stateTileRows({ stateSize, dtype, loads });
  const each = headDim / count;
  return count > 0 &&
    each >= 1 &&
    Number.isInteger(Math.log2(each)) &&
    Number.isInteger(Math.log2(warps)) &&
    each <= warps
    ? each
    : 0;
}

/** Blocks of threads that share the heads of a row. */
export function ssmStepBlocks(spec: SsmStepSpec, tiling = ssmStepTiling(spec)): number {
  return (spec.heads * warpsOfHead(spec, tiling)) / tiling.warps;
}

/** The arrays of a block in shared memory: where a norm follows, a sum of squares for each warp. */
export function ssmStepShared({ norm }: SsmStepSpec, { warps }: SsmStepTiling): SharedArrays<'sums'> {
  return { sums: norm ? 4 * warps : 0 };
}

/** Whether the kernel can be written for these sizes. */
export function ssmStepFits(spec: SsmStepSpec, tiling = ssmStepTiling(spec)): boolean {
  const { rows, heads, headDim, groups, stateSize, step, gate, norm } = spec;
  if (warpsOfHead(spec, tiling) === 0 || tiling.warps > 16 || heads % groups !== 0) return false;
  if (!fitsShared(ssmStepShared(spec, tiling))) return false;
  if (!Number.isInteger(ssmStepBlocks(spec, tiling)) || (norm && (heads * headDim) % 32 !== 0)) return false;
  // B and C are read in fours
  if (stateSize % 4 !== 0 || [step.stride, step.offset, heads * headDim].some((x) => x % 4 !== 0)) return false;
  return Math.max(rows * heads * headDim * stateSize, rows * Math.max(step.stride, gate.stride)) < 2 ** 31;
}

/** Names and types of what the kernel is over, in order: inputs, then results, of which the first is the first input's memory. */
export function ssmStepParameters({ dtype, norm }: SsmStepSpec): (readonly [name: string, dtype: Dtype])[] {
  const float = (...names: string[]): (readonly [string, Dtype])[] => names.map((name) => [name, 'float32']);
  return [
    ['state', dtype],
    ...float('step', 'gate', 'D', ...(norm ? ['gamma'] : [])),
    ['next', dtype],
    ['v', norm ? 'bfloat16' : 'float32'],
    ...float(...(norm ? ['squares'] : [])),
  ];
}
