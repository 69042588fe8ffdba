/** Names as hasty fingers and other habits write them. */

/** Misspellings of a name: letters left out, doubled, swapped; the other spelling of its words. None is in `known`. */
export function misspellings(name: string, known: ReadonlySet<string>): string[] {
  const at = Math.floor(name.length / 2);
  const camel = name.replaceAll(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  const snake = name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const made = [
    name.slice(0, at) + name.slice(at + 1),
    name.slice(0, at) + name[at]! + name.slice(at),
    name.slice(0, at - 1) + name[at]! + name[at - 1]! + name.slice(at + 1),
    `${name}s`,
    `${name}_`,
    camel,
    snake,
    name.toUpperCase(),
  ];
  return [...new Set(made)].filter((each) => each !== '' && !known.has(each));
}
