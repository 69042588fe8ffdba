/**
 * config.json with infinities. JSON has none, so transformers 4.x writes the bare tokens of Python's json (`Infinity`)
 * and transformers 5.x `{"__float__": "Infinity"}`; both are read, the second is written unless asked otherwise.
 */
import { CheckpointError } from '../base/errors.js';
import { plain, quote } from '../base/quote.js';
import { CONFIG_JSON_TABLE } from './save_options.js';

const SPECIAL: Readonly<Record<string, number>> = { Infinity: Infinity, '-Infinity': -Infinity, NaN: NaN };
const MARK = '__float__';

/**
 * Keys that transformers 5.x declares as float and loads from nothing else: a whole number must be written 0.0, which
 * JSON.stringify never does.
 */
const FLOATS = new Set([
  'layer_norm_epsilon',
  'initializer_range',
  'time_step_min',
  'time_step_max',
  'time_step_floor',
  'time_step_limit',
]);
const WHOLE = '__whole__:';

/** Replaces bare Infinity, -Infinity and NaN outside strings by their 5.x objects. */
function wrapBareTokens(text: string): string {
  // A string literal is matched first, so that a token inside one is never touched; one that does not end takes the rest, since a
  // search from each of its quotes would be of quadratic time.
  return text.replace(/"(?:[^"\\]|\\.)*(?:"|\\?$)|-?\bInfinity\b|\bNaN\b/gs, (token) =>
    token.startsWith('"') ? token : `{"${MARK}":"${token}"}`,
  );
}

/**
 * Parses a JSON object that may hold infinities or NaN in either spelling; they become numbers.
 * @param text the file's text
 * @param file its path, for the message
 * @returns the object, all keys kept
 * @throws CheckpointError when the text is not JSON or not an object
 * @example parseConfigJson('{"time_step_limit": [0.0, Infinity]}').time_step_limit // [0, Infinity]
 */
export function parseConfigJson(text: string, file = 'config.json'): Record<string, unknown> {
  let value: unknown;
  const revive = (_key: string, part: unknown): unknown => {
    if (typeof part !== 'object' || part === null) return part;
    const keys = Object.keys(part);
    if (keys.length !== 1 || keys[0] !== MARK) return part;
    const name = (part as Record<string, unknown>)[MARK];
    if (typeof name === 'string' && Object.hasOwn(SPECIAL, name)) return SPECIAL[name];
    throw new CheckpointError(`${file}: "${MARK}" is ${quote(name)}; expected "Infinity", "-Infinity" or "NaN".`, {
      file,
    });
  };
  try {
    value = JSON.parse(wrapBareTokens(text), revive);
  } catch (error) {
    if (error instanceof CheckpointError) throw error;
    if (error instanceof RangeError)
      throw new CheckpointError(`${file} is nested deeper than a configuration is.`, { file }, { cause: error });
    throw new CheckpointError(
      `${file} is not valid JSON: ${plain((error as Error).message, 200)}`,
      { file },
      { cause: error },
    );
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new CheckpointError(
      `${file} holds ${Array.isArray(value) ? 'a list' : String(value)}; expected a JSON object.`,
      {
        file,
      },
    );
  return value as Record<string, unknown>;
}

/** Options of stringifyConfigJson. */
export interface ConfigJsonOptions {
  /** true writes Infinity as transformers 4.x does; default false */
  legacy_json?: boolean;
}

/**
 * Writes a configuration as transformers does: two spaces, keys sorted, floats with a point, a newline at the end.
 * @param options legacy_json: true writes bare `Infinity` (the only form that transformers 4.x reads) instead of 5.x's object
 */
export function stringifyConfigJson(config: Record<string, unknown>, options: ConfigJsonOptions = {}): string {
  CONFIG_JSON_TABLE.check(options);
  const whole = (value: unknown): unknown =>
    Number.isInteger(value) && Math.abs(value as number) < 1e21 ? `${WHOLE}${value as number}` : value;
  const replacer = (key: string, value: unknown): unknown => {
    if (typeof value === 'number' && !Number.isFinite(value)) return { [MARK]: String(value) };
    if (!FLOATS.has(key)) return value;
    return Array.isArray(value) ? value.map(whole) : whole(value);
  };
  const sorted = Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
  const text = JSON.stringify(sorted, replacer, 2).replace(new RegExp(`"${WHOLE}(-?\\d+)"`, 'g'), '$1.0');
  const legacy = new RegExp(`\\{\\s*"${MARK}":\\s*"(-?Infinity|NaN)"\\s*\\}`, 'g');
  return (options.legacy_json ? text.replace(legacy, '$1') : text) + '\n';
}
