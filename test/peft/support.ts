/** What tests of adapters made by PEFT have in common. */
import type { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import type { PeftModel } from '../../src/peft/index.js';

/**
 * Merges an adapter in place, takes it back, and merges it into a model of its own.
 * @param check called after each of them
 * @returns that model, the caller's to dispose of
 */
export function mergeEachWay(
  peft: PeftModel<Mamba2ForCausalLM>,
  check: (of: PeftModel | Mamba2ForCausalLM, what: string) => void,
): Mamba2ForCausalLM {
  peft.merge_adapter({ safe_merge: true });
  check(peft, 'merged');
  peft.unmerge_adapter();
  check(peft, 'unmerged');
  const whole = peft.merge_and_unload();
  check(whole, 'a model of its own');
  return whole;
}
