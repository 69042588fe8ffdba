/** Names of the variables and functions of a decoding program. b: rows of a batch, t: tokens of a segment. */

/** Where states of b rows lie: in the slot of a batch size; as the rows of a scheduler, its prompts that are read together, or what it keeps. */
export const places = {
  slot: (b: number): string => `state${b}`,
  rows: (b: number): string => `rows${b}`,
  readers: (b: number): string => `readers${b}`,
  kept: (b: number): string => `kept${b}`,
};

export const variables = {
  /** A state kept per model: all layers in one variable [b, layers, ...]. */
  ofModel: (place: string, state: string): string => `${place}/${state}`,
  /** A state kept per layer, [b, ...]. */
  ofLayer: (place: string, layer: number, state: string): string => `${place}/layers.${layer}.${state}`,
  /** Of the next token, [b, v]. */
  logitsOf: (place: string): string => `${place}/logits`,
  logits: (b: number): string => variables.logitsOf(places.slot(b)),
  /** How many tokens each row may still choose, [b]; 0 once it has ended. */
  left: (b: number): string => `state${b}/left`,
  /** [b, v]: 1 for ids that a row has had. */
  history: (b: number): string => `state${b}/history`,
  /** Of the rows of a scheduler, [b, v]: what is added to scores; what a row has had, see historyOf(). */
  rowsBias: (b: number): string => `rows${b}/bias`,
  rowsHistory: (b: number): string => `rows${b}/history`,
  /** [v]: 0, or -inf where an id is never chosen. */
  bias: 'bias',
  /** [v]: 1 where an id ends a row. */
  eos: 'eos',
  /** Where several devices run a program at once: 1 for the device itself and 0 for the others, [devices]. */
  device: 'device',
  /** Where layers lie on several devices: the last number that a device heard from others, and infinity, [1] on each. */
  heard: (device: number): string => `heard${device}`,
  infinity: (device: number): string => `infinity${device}`,
  /** Small weights, one after another. */
  packed: 'packed',
};

export const functions = {
  /** Reads t tokens of each row, those that are masked left out. */
  prefill: (b: number, t: number): string => `prefill${b}x${t}`,
  /** The same, of rows that lie elsewhere than in the slot of their number. */
  prefillOf: (place: string, t: number): string => `prefill_${place}x${t}`,
  /** Reads one token of each row. */
  step: (b: number): string => `step${b}`,
  logits: (b: number): string => `logits${b}`,
  /** Puts rows in another order; rows may repeat. */
  select: (b: number): string => `select${b}`,
  /** Makes the states zeros, where a call for each variable would cost too much. */
  zero: (b: number): string => `zero${b}`,
  /** Chooses the best id, or one by chance, and reads it. */
  greedy: (b: number): string => `greedy${b}`,
  sample: (b: number): string => `sample${b}`,
  /** The same several times over. */
  greedyLoop: (b: number): string => `greedy${b}loop`,
  sampleLoop: (b: number): string => `sample${b}loop`,
  /** The state of one row from one place to another; several of them in one call; and zeros for some rows of a place. */
  copy: (from: string, to: string): string => `copy_${from}_${to}`,
  copies: (from: string, to: string): string => `copies_${from}_${to}`,
  clear: (place: string): string => `clear_${place}`,
  /** Of the rows of a scheduler: from rows to rows with all that is known of one; its bias and its history. */
  move: (from: number, to: number): string => `move${from}to${to}`,
  rowBias: (b: number): string => `bias${b}`,
  rowHistory: (b: number): string => `history${b}`,
  /** One token of each row, by its own settings; several; and one by a mask. */
  rows: (b: number): string => `rows${b}`,
  rowsLoop: (b: number): string => `rows${b}loop`,
  rowsMasked: (b: number): string => `rows${b}masked`,
};

/** Input of counted loops: how many tokens. */
export const COUNT = 'count';

/** Output of what is repeated in them: whether all rows have ended. */
export const DONE = 'done';
