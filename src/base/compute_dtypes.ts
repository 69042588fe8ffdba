/** Names of the element types that a model computes with, as config.json, PyTorch and people spell them. */
import type { Kind } from './option_kinds.js';
import { floatDtypeOf } from './stored_dtypes.js';

/** How matrices are held: 'auto' is bfloat16 where the checkpoint has it, else float32. */
export type ComputeDtype = 'auto' | 'float32' | 'bfloat16';

/** The same types by their other names. */
export type DtypeLike = ComputeDtype | 'torch.float32' | 'torch.bfloat16' | 'fp32' | 'bf16';

/** What a name means; null for what is none, or is none that is computed with. */
export function computeDtypeOf(name: unknown): ComputeDtype | null {
  if (name === 'auto') return name;
  const stored = floatDtypeOf(name);
  return stored === 'F32' ? 'float32' : stored === 'BF16' ? 'bfloat16' : null;
}

/** What `dtype` options of models take. float16 is refused rather than taken for something else: its range is too small for the scan. */
export const computeDtypeKind: Kind = {
  expected:
    "'auto', 'float32' or 'bfloat16' (a checkpoint in float16 loads as float32; nothing is computed in float16, whose range is too small)",
  ok: (v) => computeDtypeOf(v) !== null,
};
