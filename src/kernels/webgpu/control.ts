/** What steers the steps of a block, in a buffer of words for each row: the choice writes the first four, the host all before a block. */
export const CONTROL = [
  'step', // of the block
  'token', // that is fed next
  'moves', // 1: states and scores move on; 0: the row has ended, and keeps them
  'finished', // 1: the end token was chosen
  'pad', // what a row gives that has ended
  'top_k', // 0: all
  'temperature', // bits of a float32
] as const;

export type ControlWord = (typeof CONTROL)[number];

/** Words of a row. */
export function controlWords(
  values: Readonly<Record<Exclude<ControlWord, 'step' | 'temperature'>, number>>,
  temperature: number,
): Uint32Array {
  const bits = new Uint32Array(Float32Array.of(temperature).buffer)[0]!;
  return Uint32Array.from(CONTROL, (name) => (name === 'step' ? 0 : name === 'temperature' ? bits : values[name]));
}

/** WGSL of a word. @param row whose, in WGSL; of the first where nothing is said */
export const control = (name: ControlWord, row?: string): string => {
  const at = CONTROL.indexOf(name);
  return row === undefined ? `control[${at}]` : `control[${CONTROL.length}u * ${row} + ${at}u]`;
};
