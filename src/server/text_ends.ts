/** Where texts that come piece by piece may be about to say something. */

/** How many characters at the end of a text are the beginning of a mark, which is longer. */
export function beginningAtEnd(text: string, mark: string): number {
  for (let length = Math.min(mark.length - 1, text.length); length > 0; length--)
    if (text.endsWith(mark.slice(0, length))) return length;
  return 0;
}
