/** Which weights of a model are quantised, and why the others are not. */
import { ConfigError } from '../base/errors.js';
import { escapePattern, Pattern } from '../base/pattern.js';
import { isMatrix, type WeightRole } from '../layers/weights.js';
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

/** A weight as the choice sees it. */
interface QuantizationCandidate {
  readonly name: string;
  readonly shape: readonly number[];
  readonly role: WeightRole;
}

function matches(name: string, pattern: string | RegExp): boolean {
  const where = 'modules_to_not_convert';
  if (pattern instanceof RegExp) return new Pattern(pattern.source, where, ConfigError, pattern.flags).test(name);
  const escaped = pattern.split(/\*+/).map(escapePattern);
  return new Pattern(`(^|\\.)${escaped.join('.*')}(\\.|$)`, where, ConfigError).test(name);
}

/**
 * Decides over all weights of a model: projections, with `include_input_output_embeddings` the embedding and the head;
 * none that is named in modules_to_not_convert, none whose rows the groups do not divide.
 *
 * @throws ConfigError when nothing is left to quantise, with the reasons
 */
export function planQuantization(
  weights: Iterable<QuantizationCandidate>,
  config: QuantizationConfig,
): QuantizationPlan {
  const names: string[] = [];
  const skipped: (Skipped & { role: WeightRole })[] = [];
  for (const weight of weights) {
    const { name, shape, role } = weight;
    if (!isMatrix(weight)) continue;
    const skip = (reason: string): void => void skipped.push({ name, reason, role });
    const inner = shape[1]!;
    const pattern = config.modules_to_not_convert.find((p) => matches(name, p));
    if (role !== 'projection' && !config.include_input_output_embeddings)
      skip('include_input_output_embeddings is false');
    else if (pattern !== undefined) skip(`modules_to_not_convert has ${String(pattern)}`);
    else if (config.bits === 4 && inner % config.group_size !== 0)
      skip(`${inner} input channels are no multiple of group_size ${config.group_size}`);
    else names.push(name);
  }
  const report = skipped.map(({ name, reason }) => ({ name, reason }));
  if (names.length === 0) {
    // what the user can change first
    const order = [...skipped].sort((a, b) => Number(a.role !== 'projection') - Number(b.role !== 'projection'));
    const shown = order.slice(0, 4).map(({ name, reason }) => `- ${name}: ${reason}`);
    throw new ConfigError(
      `Nothing to quantise in this model:\n${shown.join('\n')}\nChoose another group_size or fewer modules_to_not_convert.`,
      { option: config.bits === 4 ? 'group_size' : 'modules_to_not_convert', skipped: report },
    );
  }
  return { names, skipped: report };
}
