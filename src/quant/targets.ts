/** Which weights of a model are quantised, and why the others are not. */
import { ConfigError } from '../base/errors.js';
import type { QuantizationConfig } from './config.js';

/** A weight that stays in float although it is of a kind that is quantised. */
export interface Skipped {
  readonly name: string;
  readonly reason: string;
}

export interface QuantizationPlan {
  /** Names of the weights to quantise, in the order given. */
  readonly names: readonly string[];
  readonly skipped: readonly Skipped[];
}

const PROJECTION = /\.(in_proj|out_proj)\.weight$/;
const INPUT_OUTPUT = /^(backbone\.embeddings|lm_head)\.weight$/;

/** True for the matrices that can be quantised: the projections, the embedding and the head. */
export function isQuantizable(name: string): boolean {
  return PROJECTION.test(name) || INPUT_OUTPUT.test(name);
}

function matches(name: string, pattern: string | RegExp): boolean {
  if (pattern instanceof RegExp) return pattern.test(name);
  const escaped = pattern.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`(^|\\.)${escaped.join('.*')}(\\.|$)`).test(name);
}

/**
 * Decides over all weights of a model: in_proj and out_proj, with `include_input_output_embeddings` the embedding and
 * the head; none that is named in modules_to_not_convert, none whose rows the groups do not divide.
 *
 * @param weights names and shapes
 * @throws ConfigError when nothing is left to quantise, with the reasons
 */
export function planQuantization(
  weights: Iterable<{ readonly name: string; readonly shape: readonly number[] }>,
  config: QuantizationConfig,
): QuantizationPlan {
  const names: string[] = [];
  const skipped: Skipped[] = [];
  for (const { name, shape } of weights) {
    if (!isQuantizable(name)) continue;
    const [, inner] = shape;
    const pattern = config.modules_to_not_convert.find((p) => matches(name, p));
    if (INPUT_OUTPUT.test(name) && !config.include_input_output_embeddings)
      skipped.push({ name, reason: 'include_input_output_embeddings is false' });
    else if (pattern !== undefined) skipped.push({ name, reason: `modules_to_not_convert has ${String(pattern)}` });
    else if (config.bits === 4 && inner % config.group_size !== 0)
      skipped.push({ name, reason: `${inner} input channels are no multiple of group_size ${config.group_size}` });
    else names.push(name);
  }
  if (names.length === 0) {
    // what the user can change first
    const order = [...skipped].sort((a, b) => Number(INPUT_OUTPUT.test(a.name)) - Number(INPUT_OUTPUT.test(b.name)));
    const shown = order.slice(0, 4).map(({ name, reason }) => `- ${name}: ${reason}`);
    throw new ConfigError(
      `Nothing to quantise in this model:\n${shown.join('\n')}\nChoose another group_size or fewer modules_to_not_convert.`,
      { option: config.bits === 4 ? 'group_size' : 'modules_to_not_convert', skipped },
    );
  }
  return { names, skipped };
}
