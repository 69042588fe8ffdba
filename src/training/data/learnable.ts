/** Examples that can be learnt from: as many labels as ids, and one label at least that counts. */
import { ArgumentError } from '../../base/errors.js';
import { plain } from '../../base/quote.js';
import { IGNORE_INDEX } from '../../layers/index.js';
import type { ExampleSource } from './loader.js';
import type { TokenizedExample } from './tokenize.js';

/** @param number of the example, for the message @throws ArgumentError unless there is a label for every id */
export function checkLabels(example: TokenizedExample, number: number): void {
  const { input_ids, labels } = (example ?? {}) as Partial<TokenizedExample>;
  if (!Array.isArray(input_ids) && !ArrayBuffer.isView(input_ids)) {
    const keys = Object.keys(example ?? {});
    throw new ArgumentError(
      `Example ${number} has no list input_ids; it has ${keys.map((key) => plain(key)).join(', ') || 'nothing'}. SFTTrainer takes texts.`,
      { example: number, keys },
    );
  }
  const ids = input_ids as readonly number[];
  if (!labels || labels.length === ids.length) return;
  throw new ArgumentError(
    `Example ${number} has ${labels.length} labels for ${ids.length} input_ids, expected one for each; ${IGNORE_INDEX} leaves a position out`,
    { example: number, got: labels.length, expected: ids.length },
  );
}

/** Whether any position counts: the first is predicted by none. */
function counts({ input_ids, labels = input_ids }: TokenizedExample): boolean {
  return labels.some((label, i) => i > 0 && label !== IGNORE_INDEX);
}

/**
 * The examples without those that have nothing to learn from, so that every batch has a loss and is an update or a part of one.
 * @throws ArgumentError when labels are not as many as ids, at once for a list; when nothing of a list is left
 */
export function learnable(source: ExampleSource): ExampleSource {
  if (Array.isArray(source)) {
    const list = source as readonly TokenizedExample[];
    list.forEach(checkLabels);
    const left = list.filter(counts);
    if (left.length === 0 && list.length > 0) {
      throw new ArgumentError(
        `None of the ${list.length} examples has anything to learn from: all have one token or none, or every label is ${IGNORE_INDEX}`,
        { examples: list.length },
      );
    }
    return left;
  }
  return async function* () {
    let number = 0;
    for await (const example of typeof source === 'function' ? source() : (source as AsyncIterable<TokenizedExample>)) {
      checkLabels(example, number++);
      if (counts(example)) yield example;
    }
  };
}
