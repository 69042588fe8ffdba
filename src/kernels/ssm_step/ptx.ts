/**
 * The recurrence of a decoding step of several rows on a GPU as one kernel in PTX, with the skip and the gate after it and, where one norm
 * follows, its weight and the sums of its squares. States are updated where they lie.
 */
import { ArgumentError } from '../../base/errors.js';
import { PtxWriter } from '../../jit/custom_call/ptx.js';
import type { TritonKernel } from '../../jit/custom_call/triton.js';
import { StateTile } from './ptx_tile.js';
import {
  ssmStepBlocks,
  ssmStepFits,
  ssmStepParameters,
  ssmStepShared,
  type SsmStepSpec,
  ssmStepTiling,
  warpsOfHead,
} from './spec.js';

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

  const state = new StateTile(k, { stateSize: n, dtype, loads: tiling.loads });
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
  const rounded = k.int('cvt.rn.bf16x2.f32', k.float('mov.f32', 0), k.float('mul.f32', v, gamma));
  k.when(state.speaks, () => k.run('st.global.u16', `[${to}]`, rounded));
  const mine = k.float('selp.f32', k.float('mul.f32', v, v), '0f00000000', state.speaks);
  const sum = k.across('add.f32', mine);
  const sums = k.array(ssmStepShared(spec, tiling).sums);
  k.when(k.compare('eq.u32', k.lane, 0), () => k.run('st.shared.f32', `[${k.place(sums, k.warp, 4)}]`, sum));
  k.barrier();
  const lead = k.compare('eq.u32', k.thread, 0);
  const terms = Array.from({ length: tiling.warps }, (_, i) => k.float('ld.shared.f32', `[${sums}+${4 * i}]`));
  const total = terms.reduce((a, b) => k.float('add.f32', a, b));
  k.when(lead, () => k.run('st.global.f32', `[${k.address(pointer('squares'), k.block, 4)}]`, total));
  return k;
}
