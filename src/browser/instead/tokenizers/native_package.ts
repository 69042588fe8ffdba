/** A page has the tokenizer in JavaScript. */
export const nativePackage = (): null => null;
