/**
 * Products of one row as Triton kernels, in which vectors stay float32 and are not rounded: for matrices of float32, and for those of
 * bfloat16 and of codes whose sizes the kernels in PTX do not take.
 */
import { ArgumentError } from '../../base/errors.js';
import type { TritonKernel, TtirValue } from '../../jit/custom_call/triton.js';
import type { OneRowSpec } from './spec.js';
import { OneRowTriton } from './triton_block.js';
import { rowsOf } from './triton_formats.js';
import { oneRowTritonFits, oneRowTritonTiling } from './triton_tiling.js';

function build(w: OneRowTriton): TritonKernel {
  const { k, spec, tiling } = w;
  const { residual, out, epilogue } = spec;
  const tiles = Math.ceil(out / tiling.rows);
  const turns = Math.min(tiles, tiling.turns);
  const programs = Math.ceil(tiles / turns);
  const program = k.program();
  const range = k.range(tiling.rows);
  /** Rows of a turn, and which of them there are. */
  const rowsAt = (turn: TtirValue | number): { rows: TtirValue; mask?: TtirValue } => {
    const tile = w.offset(program, typeof turn === 'number' ? turn * programs : k.binary('arith.muli', turn, programs));
    const rows = w.offset(range, k.binary('arith.muli', tile, tiling.rows));
    return { rows, mask: turns * programs * tiling.rows === out ? undefined : k.compare('arith.cmpi slt', rows, out) };
  };
  const finish = (product: TtirValue, rows: TtirValue, mask?: TtirValue): void => {
    const y = residual ? w.add(product, k.load(w.pointer('residual'), rows, mask)) : product;
    if (epilogue) w.epilogue(epilogue, rows, y, mask);
    else k.store(w.pointer('y'), rows, y, mask);
  };
  const stored = rowsOf(w);
  if (tiling.prefetch) {
    let next = { ...rowsAt(0), loaded: stored.load(rowsAt(0)) };
    const multiply = stored.prepare();
    for (let turn = 0; turn < turns; turn++) {
      const { rows, mask, loaded } = next;
      if (turn + 1 < turns) {
        const at = rowsAt(turn + 1);
        next = { ...at, loaded: stored.load(at) };
      }
      finish(multiply(loaded), rows, mask);
    }
  } else {
    const multiply = stored.prepare();
    k.repeat(turns, 1, (turn) => {
      const at = rowsAt(turns === 1 ? 0 : turn);
      finish(multiply(stored.load(at)), at.rows, at.mask);
    });
  }
  return k.kernel({ grid: programs, warps: tiling.warps });
}

/** The kernel of a product, over the inputs of parametersOf and the result. */
export function oneRowTritonKernel(spec: OneRowSpec, tiling = oneRowTritonTiling(spec)): TritonKernel {
  if (!oneRowTritonFits(spec, tiling))
    throw new ArgumentError('oneRowTritonKernel: no kernel for these sizes', { spec });
  return build(new OneRowTriton(spec, tiling));
}
