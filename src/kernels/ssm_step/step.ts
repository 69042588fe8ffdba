/**
 * The recurrence of a decoding step of several rows on a GPU as one kernel in PTX, with the skip and the gate after it and, where one norm
 * follows, its weight and the sums of its squares. States are updated where they lie.
 */
import type * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../../base/errors.js';
import { PtxWriter } from '../../jit/custom_call/ptx.js';
import { StateTile, stateTileRows } from './ptx.js';
import { trueDtype } from '../../jit/ops/ops.js';
import { runTritonAll, tritonRuns, type TritonKernel } from '../../jit/custom_call/triton.js';
import type { Dtype } from '../../jit/types.js';

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

/** How the work is shared out: a matter of speed only. */
export interface SsmStepTiling {
  warps: number;
  /** See StateTileSpec. */
  pieces: number;
}

/** Pieces that were fastest on an H100. */
export function ssmStepTiling({ heads, headDim, dtype, stateSize }: SsmStepSpec): SsmStepTiling {
  let pieces = 8;
  while (pieces > 1 && headDim % stateTileRows({ stateSize, dtype, pieces }) !== 0) pieces /= 2;
  const each = headDim / stateTileRows({ stateSize, dtype, pieces });
  let warps = Math.max(each, 4);
  while (warps > each && (heads * each) % warps !== 0) warps /= 2;
  return { warps, pieces };
}

/** Warps that share a head; 0 where they cannot. */
function warpsOfHead({ headDim, dtype, stateSize }: SsmStepSpec, { warps, pieces }: SsmStepTiling): number {
  const count = stateTileRows({ stateSize, dtype, pieces });
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

/** Whether the kernel can be written for these sizes. */
export function ssmStepFits(spec: SsmStepSpec, tiling = ssmStepTiling(spec)): boolean {
  const { rows, heads, headDim, groups, stateSize, step, gate, norm } = spec;
  if (warpsOfHead(spec, tiling) === 0 || tiling.warps > 16 || heads % groups !== 0) return false;
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

/** The kernel, over ssmStepParameters. */
export function ssmStepKernel(spec: SsmStepSpec, tiling = ssmStepTiling(spec)): TritonKernel {
  return ssmStepWriter(spec, tiling).kernel(spec.rows * ssmStepBlocks(spec, tiling));
}

/** The kernel as it is written. */
export function ssmStepWriter(spec: SsmStepSpec, tiling = ssmStepTiling(spec)): PtxWriter {
  if (!ssmStepFits(spec, tiling)) throw new ArgumentError('ssmStepKernel: no kernel for these sizes', { spec, tiling });
  const { heads, headDim: p, groups, stateSize: n, dtype, step, gate, norm, rows } = spec;
  const parameters = ssmStepParameters(spec);
  const types = parameters.map(([, type]) => type);
  const k = new PtxWriter('ssm_step', types, tiling.warps);
  const pointer = (name: string): string => k.pointer(parameters.findIndex(([own]) => own === name));
  const each = warpsOfHead(spec, tiling);
  const blocks = ssmStepBlocks(spec, tiling);
  const row = k.int('div.u32', k.block, blocks);
  const block = k.int('sub.s32', k.block, k.int('mul.lo.u32', row, blocks));
  const head = k.int('mad.lo.u32', block, tiling.warps / each, k.int('shr.u32', k.warp, Math.log2(each)));

  const state = new StateTile(k, { stateSize: n, dtype, pieces: tiling.pieces });
  const part = k.int('mul.lo.u32', k.int('and.b32', k.warp, each - 1), state.count); // the warp's first row in its head
  const first = k.int('mad.lo.u32', k.int('mad.lo.u32', row, heads, head), p, part);
  const bytes = n * (dtype === 'bfloat16' ? 2 : 4);
  const at = (name: string): string => state.place(k.address(pointer(name), first, bytes));
  state.ask(at('state'));

  // what else is needed, all on its way before any of it is used
  const inner = heads * p;
  const own = k.int('add.u32', k.int('mad.lo.u32', head, p, part), state.own); // the lane's own channel
  const load = (from: string, index: string, offset = 0): string =>
    k.float('ld.global.nc.f32', `[${k.address(from, index, 4)}+${4 * offset}]`);
  const stepRow = k.set('d', 'mad.wide.u32', row, 4 * step.stride, pointer('step'));
  const dt = load(stepRow, head, step.offset + inner + 2 * groups * n);
  const decay = load(stepRow, head, step.offset + inner + 2 * groups * n + heads);
  const x = load(stepRow, own, step.offset);
  const group = k.int('mul.lo.u32', k.int('div.u32', head, heads / groups), n);
  const vectors = k.set('d', 'add.s64', k.address(stepRow, group, 4), 4 * (step.offset + inner));
  const B = state.columns(vectors);
  const C = state.columns(k.set('d', 'add.s64', vectors, 4 * groups * n));
  const z = load(k.set('d', 'mad.wide.u32', row, 4 * gate.stride, pointer('gate')), own, gate.offset);
  const skip = load(pointer('D'), head);
  const gamma = norm ? load(pointer('gamma'), own) : null;

  const y = state.advance(decay, k.float('mul.f32', x, dt), B, C);
  // a row that is switched off has no step, and its state is what it was
  state.store(at('next'), k.compare('ne.f32', dt, '0f00000000'));
  const v = k.float('mul.f32', k.float('fma.rn.f32', skip, x, y), gate.activated ? z : k.silu(z));
  if (!gamma) {
    const to = k.address(k.set('d', 'mad.wide.u32', row, 4 * inner, pointer('v')), own, 4);
    k.when(state.speaks, () => k.run('st.global.f32', `[${to}]`, v));
    return k;
  }
  const slot = k.int('mad.lo.u32', k.int('shr.u32', own, 5), rows, row);
  const place =
    norm === 'row_major'
      ? k.int('mad.lo.u32', row, inner, own)
      : k.int('mad.lo.u32', slot, 32, k.int('and.b32', own, 31));
  const to = k.address(pointer('v'), place, 2);
  const narrow = k.int('cvt.rn.bf16x2.f32', k.float('mov.f32', 0), k.float('mul.f32', v, gamma));
  k.when(state.speaks, () => k.run('st.global.u16', `[${to}]`, narrow));
  const mine = k.float('selp.f32', k.float('mul.f32', v, v), '0f00000000', state.speaks);
  const sum = k.across('add.f32', mine);
  const sums = k.array(4 * tiling.warps);
  k.when(k.compare('eq.u32', k.lane, 0), () => k.run('st.shared.f32', `[${k.place(sums, k.warp, 4)}]`, sum));
  k.barrier();
  const lead = k.compare('eq.u32', k.thread, 0);
  const terms = Array.from({ length: tiling.warps }, (_, i) => k.float('ld.shared.f32', `[${sums}+${4 * i}]`));
  const total = terms.reduce((a, b) => k.float('add.f32', a, b));
  k.when(lead, () => k.run('st.global.f32', `[${k.address(pointer('squares'), k.block, 4)}]`, total));
  return k;
}

/** What the kernel is applied to. */
export interface SsmStepInputs extends Pick<SsmStepSpec, 'heads' | 'headDim' | 'groups' | 'stateSize'> {
  /** [rows, heads, p, n], float32 or bfloat16 */
  state: tf.Tensor;
  /** [rows, …] and where x | B | C | dt | decay begin in a row */
  step: { values: tf.Tensor; offset: number };
  /** [rows, …] and where z begins in a row */
  gate: { values: tf.Tensor; offset: number; activated: boolean };
  /** [heads] */
  D: tf.Tensor;
  /** Weight of one norm over all channels, [heads·p], and how v·gamma is to lie. */
  norm?: { gamma: tf.Tensor; layout: 'blocked' | 'row_major' };
}

export interface SsmStepResult {
  /** The state after, in the type and, where nothing else needs that, the memory of the one before. */
  state: tf.Tensor;
  /** See SsmStepSpec.norm. */
  v: tf.Tensor;
  /** [rows, parts]; with a norm alone. */
  squares?: tf.Tensor2D;
}

/** Runs the kernel. Traced code for a GPU alone, without a gradient. @returns null where there is no kernel */
export function ssmStep(inputs: SsmStepInputs): SsmStepResult | null {
  const { state, step, gate, D, norm, heads, headDim, groups, stateSize } = inputs;
  const rows = state.shape[0]!;
  const dtype = trueDtype(state);
  if (!tritonRuns() || (dtype !== 'float32' && dtype !== 'bfloat16')) return null;
  const columns = ({ values, offset }: { values: tf.Tensor; offset: number }): Columns => ({
    stride: values.shape[1]!,
    offset,
  });
  const spec: SsmStepSpec = {
    ...{ rows, heads, headDim, groups, stateSize, dtype },
    step: columns(step),
    gate: { ...columns(gate), activated: gate.activated },
    norm: norm?.layout ?? null,
  };
  if (!ssmStepFits(spec)) return null;
  const inner = heads * headDim;
  const given = [state, step.values, gate.values, D, ...(norm ? [norm.gamma] : [])];
  const size = norm?.layout === 'blocked' ? [inner / 32, rows, 32] : [rows, inner];
  const shapes = [state.shape, size, [rows, ssmStepBlocks(spec)]];
  const types: Dtype[] = [dtype, norm ? 'bfloat16' : 'float32', 'float32'];
  const count = norm ? 3 : 2;
  const results = runTritonAll(
    ssmStepKernel(spec),
    given,
    shapes.slice(0, count),
    types.slice(0, count),
    new Map([[0, 0]]),
  );
  return { state: results[0]!, v: results[1]!, ...(norm && { squares: results[2] as tf.Tensor2D }) };
}
