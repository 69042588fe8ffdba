/** What steers the steps of a block, in a buffer of words: the choice writes the first four, the host all before a block. */
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

export function controlWords(
  values: Readonly<Record<Exclude<ControlWord, 'step' | 'temperature'>, number>>,
  temperature: number,
): Uint32Array {
  const bits = new Uint32Array(Float32Array.of(temperature).buffer)[0]!;
  return Uint32Array.from(CONTROL, (name) => (name === 'step' ? 0 : name === 'temperature' ? bits : values[name]));
}

/** WGSL of a word. */
export const control = (name: ControlWord): string => `control[${CONTROL.indexOf(name)}]`;
