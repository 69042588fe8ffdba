/** Names of the variables and functions of a decoding program. b: rows of a batch, t: tokens of a segment. */

export const variables = {
  /** A state kept per model: all layers in one variable [b, layers, ...]. */
  ofModel: (b: number, state: string): string => `state${b}/${state}`,
  /** A state kept per layer, [b, ...]. */
  ofLayer: (b: number, layer: number, state: string): string => `state${b}/layers.${layer}.${state}`,
  /** Of the next token, [b, v]. */
  logits: (b: number): string => `state${b}/logits`,
  /** How many tokens each row may still choose, [b]; 0 once it has ended. */
  left: (b: number): string => `state${b}/left`,
  /** [b, v]: 1 for ids that a row has had. */
  history: (b: number): string => `state${b}/history`,
  /** [v]: 0, or -inf where an id is never chosen. */
  bias: 'bias',
  /** [v]: 1 where an id ends a row. */
  eos: 'eos',
  /** Small weights, one after another. */
  packed: 'packed',
};

export const functions = {
  /** Reads t tokens of each row, those that are masked left out. */
  prefill: (b: number, t: number): string => `prefill${b}x${t}`,
  /** Reads one token of each row. */
  step: (b: number): string => `step${b}`,
  logits: (b: number): string => `logits${b}`,
  /** Puts rows in another order; rows may repeat. */
  select: (b: number): string => `select${b}`,
  /** Chooses the best id, or one by chance, and reads it. */
  greedy: (b: number): string => `greedy${b}`,
  sample: (b: number): string => `sample${b}`,
  /** The same several times over. */
  greedyLoop: (b: number): string => `greedy${b}loop`,
  sampleLoop: (b: number): string => `sample${b}loop`,
};
