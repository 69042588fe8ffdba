/** How a model generates: options of the constructor and of from_pretrained(), and their table. */
import { computeDtypeOf } from '../base/compute_dtypes.js';
import * as kinds from '../base/option_kinds.js';
import { type Clash, type OptionRules, OptionTable } from '../base/options.js';
import { type CompiledEngineOptions, ENGINE_RULES } from '../engine/compiled/options.js';

/** Which engine generates: 'auto' is compiled on the tensorflow backend, eager elsewhere. */
export type EngineKind = 'auto' | 'compiled' | 'eager';

/** How the model generates. */
export interface EngineOptions extends CompiledEngineOptions {
  /** Default 'auto'. */
  engine?: EngineKind;
}

/** Rules of EngineOptions. */
export const ENGINE_OPTION_RULES: OptionRules<EngineOptions> = {
  ...ENGINE_RULES,
  engine: { kind: kinds.oneOf('auto', 'compiled', 'eager'), default: 'auto' },
};

/**
 * What would change numbers and cannot. Options that shape programs (batches, segments, block …) hold for engines that have some, and
 * change no result.
 */
export const ENGINE_OPTION_CLASHES: readonly Clash<EngineOptions>[] = (['dtype', 'state_dtype'] as const).map(
  (option) => ({
    option,
    when: (options) => options.engine === 'eager' && computeDtypeOf(options[option]) === 'bfloat16',
    why: "and engine 'eager' computes in float32: the option would have no effect",
  }),
);

/** Options of a model made by its constructor. */
export const MODEL_TABLE = new OptionTable<EngineOptions>('new Mamba2ForCausalLM()', ENGINE_OPTION_RULES, {
  clashes: ENGINE_OPTION_CLASHES,
});
