/** Splits as Python's datasets writes them: 'train', 'train[:100]', 'train[10%:20%]', 'train+test'. */
import { ArgumentError } from '../../base/errors.js';
import { quote } from '../../base/quote.js';

/** A border of a slice: rows, or hundredths of all; negative from the end. */
export interface Border {
  readonly value: number;
  readonly percent: boolean;
}

/** A part of a split. */
export interface SplitPart {
  readonly name: string;
  readonly from: Border | null;
  readonly to: Border | null;
}

const PART = /^\s*([\w.-]+)\s*(?:\[\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*\])?\s*$/;

function border(text: string | undefined): Border | null {
  if (text === undefined) return null;
  const percent = text.endsWith('%');
  return { value: Number(percent ? text.slice(0, -1) : text), percent };
}

/** @throws ArgumentError for what is no split, or a border beyond 100 % */
export function parseSplit(split: string): SplitPart[] {
  return split.split('+').map((text) => {
    const [, name, from, to] = PART.exec(text) ?? [];
    const part = name === undefined ? null : { name, from: border(from), to: border(to) };
    const far = [part?.from, part?.to].some((b) => b?.percent && Math.abs(b.value) > 100);
    if (part && !far) return part;
    throw new ArgumentError(
      `split is ${quote(split)}; expected the name of a split, with a slice of rows or hundredths where wanted: 'train', 'train[:100]', 'train[10%:20%]', 'train+test'.`,
      { option: 'split', got: split },
    );
  });
}

/** To the nearest whole number, halves to the even one, as Python rounds. */
function rounded(value: number): number {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + Math.abs(below % 2) : Math.round(value);
}

/** The first row of a slice and the one after its last, of so many. */
export function rowsOf({ from, to }: SplitPart, length: number): [number, number] {
  const at = (b: Border | null, otherwise: number): number => {
    if (b === null) return otherwise;
    const rows = b.percent ? rounded((length * b.value) / 100) : b.value;
    return Math.max(0, Math.min(length, rows < 0 ? length + rows : rows));
  };
  const first = at(from, 0);
  return [first, Math.max(first, at(to, length))];
}

/** The same without knowing how many rows there are; null where that must be known. */
export function rowsOfStream({ from, to }: SplitPart): [number, number] | null {
  const known = (b: Border | null): boolean => b === null || (!b.percent && b.value >= 0);
  if (!known(from) || !known(to)) return null;
  const first = from?.value ?? 0;
  return [first, Math.max(first, to?.value ?? Infinity)];
}
