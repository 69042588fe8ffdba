/**
 * A Mamba-2 that several devices compute together: heads, with their groups, over the devices. Of the input projection, the convolution, the state and
 * the norm a device has the rows or channels of its heads; of the output projection their columns; of embedding and head some of the vocabulary.
 */
import { type ArrayPart, evenPart } from '../../base/array_parts.js';
import { ArgumentError } from '../../base/errors.js';
import type { TensorParallel, WeightCut } from '../../engine/recurrent_lm.js';
import type { Mamba2Network } from './network.js';

/** Numbers of devices from 2 on that heads and groups can be shared out over. */
function possible(heads: number, groups: number): number[] {
  const all = Array.from({ length: heads - 1 }, (_, i) => i + 2);
  return all.filter((n) => heads % n === 0 && (groups === 1 || groups % n === 0));
}

/** @throws ArgumentError where heads or groups cannot be shared out over so many */
export function tensorParallel(network: Mamba2Network, count: number): TensorParallel {
  const { config } = network;
  const { num_heads: h, n_groups: g, state_size: n, inner_size: inner, vocab_size: v } = config;
  const sizes = possible(h, g);
  if (!sizes.includes(count)) {
    const shown = sizes.slice(0, 8).join(', ');
    throw new ArgumentError(
      `tp_plan: ${count} devices cannot share the model's ${h} heads in ${g} group${g === 1 ? '' : 's'}: their number must divide ${g === 1 ? 'the heads' : 'heads and groups'}. ` +
        (shown === '' ? "Put whole layers on devices: device_map: 'auto'." : `tp_size may be ${shown}; device_map: 'auto' puts whole layers on any number.`), // prettier-ignore
      { option: 'tp_plan', got: count, expected: sizes, num_heads: h, n_groups: g },
    );
  }
  const own = inner / count;
  const groups = g === 1 ? 1 : g / count;
  type Range = readonly [number, number];
  /** Of device k, from `first` on: channels of its heads, states of its groups, its heads. */
  const channels = (k: number, first = 0): Range => [first + k * own, first + (k + 1) * own];
  const states = (k: number, first: number): Range =>
    g === 1 ? [first, first + n] : [first + k * groups * n, first + (k + 1) * groups * n];
  const heads = (k: number, first = 0): Range => [first + (k * h) / count, first + ((k + 1) * h) / count];
  const part = (axis: number, ...ranges: Range[]): ArrayPart => ({
    axis,
    ranges,
    size: ranges.reduce((sum, [from, to]) => sum + to - from, 0),
  });
  const convolved = (axis: number, k: number): ArrayPart =>
    part(axis, channels(k), states(k, inner), states(k, inner + g * n));
  const projected = (k: number): ArrayPart => {
    const [x, b, c, dt] = [inner, 2 * inner, 2 * inner + g * n, 2 * inner + 2 * g * n];
    return part(0, channels(k), channels(k, x), states(k, b), states(k, c), heads(k, dt));
  };
  const ofHeads = (k: number): ArrayPart => part(0, heads(k));
  const overAll = g === 1 || config.norm_groups === 'full';
  const mixer: Record<string, WeightCut> = {
    dt_bias: { part: ofHeads },
    A_log: { part: ofHeads },
    D: { part: ofHeads },
    'conv1d.weight': { part: (k) => convolved(0, k) },
    'conv1d.bias': { part: (k) => convolved(0, k) },
    'in_proj.weight': { part: projected },
    'in_proj.bias': { part: projected },
    'norm.weight': { part: (k) => part(0, channels(k)) },
    'out_proj.weight': { part: (k) => part(1, channels(k)), sums: { normed: overAll ? inner : null } },
  };
  const vocabulary: WeightCut = { part: (k) => evenPart(0, v, count, k), vocabulary: v };
  const { embedding, head } = network.names;
  const cutOf = (name: string): WeightCut | null => {
    if (name === embedding || name === head) return vocabulary;
    const [, inMixer] = name.split('.mixer.');
    return (inMixer !== undefined && mixer[inMixer]) || null;
  };
  return {
    count,
    // halves are cut off again where the width is worked out
    network: network.withConfig({
      num_heads: h / count,
      n_groups: groups,
      expand: (own + 0.5) / config.hidden_size,
    }),
    weight: cutOf,
    state: (name, k) => (name === 'conv' ? convolved(1, k) : part(0, heads(k))),
  };
}
