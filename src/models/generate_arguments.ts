/** The two forms of a call of generate(): everything in one object, or ids first and options second. */
import { GenerationError } from '../base/errors.js';
import { isPlain } from '../base/option_kinds.js';
import { quote } from '../base/quote.js';
import { isTensor } from '../base/tensors.js';
import type { IdsLike } from '../generation/ids.js';
import { GENERATE_TABLE, type GenerateInputs } from '../generation/inputs.js';

/** What a tokenizer's call gives. */
export interface EncodedIds {
  readonly input_ids: IdsLike;
  readonly attention_mask?: IdsLike | null;
}

/** Options of generate() in its second form. */
export type GenerateOptions = Omit<GenerateInputs, 'input_ids'>;

const FORMS = 'generate({ input_ids, … }) or generate(input_ids, { … })';
const FROM_TEXT = 'Ids of a text come from the tokenizer: generate(await tokenizer(text), { … }).';

/**
 * Both forms as the first one, with every name and value checked: options before ids, so that a misspelt one is told even
 * where the ids are wrong, too.
 * @throws GenerationError as generateArguments(), and for an unknown option or a wrong value
 */
export function checkedArguments(first: unknown, second?: GenerateOptions): GenerateInputs {
  if (second !== undefined) GENERATE_TABLE.check(second as GenerateInputs);
  const inputs = generateArguments(first, second);
  GENERATE_TABLE.check(inputs);
  return inputs;
}

/**
 * Both forms as the first one.
 * @throws GenerationError for what holds no ids, saying what to pass
 */
function generateArguments(first: unknown, second?: unknown): GenerateInputs {
  if (second !== undefined && (typeof second !== 'object' || second === null || Array.isArray(second))) {
    throw new GenerationError(`generate() got ${quote(second)} as its options; expected an object: ${FORMS}.`, {
      got: second,
    });
  }
  const options = (second ?? {}) as GenerateOptions;
  if (holdsIds(first)) return { ...first, ...options };
  if (isTensor(first) || isRows(first)) {
    if ('input_ids' in options) {
      throw new GenerationError('generate() got ids twice: as its first argument and as the option input_ids.', {
        option: 'input_ids',
      });
    }
    return { ...options, input_ids: first };
  }
  throw new GenerationError(`generate() got ${whatItIs(first)}; expected ${FORMS}. ${adviceFor(first)}`, {
    got: first,
  });
}

/** An object with input_ids, or of options alone, whose check says what is misspelt and that ids are missing. */
function holdsIds(value: unknown): value is GenerateInputs {
  if (typeof value !== 'object' || value === null) return false;
  return 'input_ids' in value || (isPlain(value) && Object.keys(value).length > 0);
}

/** Rows of ids; a single row without brackets around it is more often a mistake. */
function isRows(value: unknown): value is IdsLike {
  return (
    Array.isArray(value) && value.length > 0 && value.every((row) => Array.isArray(row) || ArrayBuffer.isView(row))
  );
}

function whatItIs(value: unknown): string {
  if (typeof value === 'string') return `the text ${quote(value)}`;
  if (value instanceof Promise) return 'a promise';
  if (Array.isArray(value) && value.length > 0 && value.every((v) => typeof v === 'string'))
    return `the texts ${quote(value)}`;
  return quote(value);
}

function adviceFor(value: unknown): string {
  if (value instanceof Promise) return 'Put await before what makes the ids.';
  const list = Array.isArray(value) || ArrayBuffer.isView(value);
  if (
    list &&
    Array.from(value as ArrayLike<unknown>).every((v) => typeof v === 'number') &&
    (value as { length: number }).length > 0
  )
    return 'One prompt is one row: put brackets around it, [[1, 2, 3]].';
  return FROM_TEXT;
}
