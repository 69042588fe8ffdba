/**
 * The closed set of errors that this package throws. Each carries `data`, and a message that says what was got, what
 * was expected, where, and what to do.
 */

/** Facts about a failure, for programs: file, tensor, option, got, expected … */
export type ErrorData = Readonly<Record<string, unknown>>;

/** Most characters of a message. */
const LONGEST = 10_000;

/** What a terminal obeys: control characters other than the end of a line, and marks that turn the direction of a text. */
// eslint-disable-next-line no-control-regex
const OBEYED = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/**
 * A message that is safe to print. Values are quoted where they are cited (quote.ts); here is where a name of a file or of a tensor
 * that was not is caught.
 */
function printable(message: string): string {
  const text = message.replace(OBEYED, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return text.length <= LONGEST ? text : `${text.slice(0, LONGEST - 1)}…`;
}

/** Base of all errors thrown on purpose by this package. */
export class Mamba2Error extends Error {
  override name = 'Mamba2Error';
  constructor(
    message: string,
    readonly data: ErrorData = {},
    options?: { cause?: unknown },
  ) {
    super(printable(message), options);
  }
}

/** One of these classes, as what checks and reads for several rooms is given the room's own. */
export type ErrorClass = new (message: string, data?: ErrorData, options?: { cause?: unknown }) => Mamba2Error;

/** A configuration that is malformed, contradicts itself, or asks for what the model cannot express. */
export class ConfigError extends Mamba2Error {
  override name = 'ConfigError';
}

/** A checkpoint file or folder that is missing, malformed, or disagrees with its configuration. */
export class CheckpointError extends Mamba2Error {
  override name = 'CheckpointError';
}

/** A tokenizer that is missing or malformed, or text it cannot take. */
export class TokenizerError extends Mamba2Error {
  override name = 'TokenizerError';
}

/** A chat template that is malformed, refuses a chat, or takes more than a template may; its text is in `data`. */
export class ChatTemplateError extends TokenizerError {
  override name = 'ChatTemplateError';
}

/** A device, backend or native library that cannot be used. */
export class DeviceError extends Mamba2Error {
  override name = 'DeviceError';
}

/** A wrong argument to a public function. */
export class ArgumentError extends Mamba2Error {
  override name = 'ArgumentError';
}

/** An option of generate() or of a pipeline that is wrong or not supported. */
export class GenerationError extends Mamba2Error {
  override name = 'GenerationError';
}

/** A failure while training: a loss that is not finite, a checkpoint that does not fit. */
export class TrainingError extends Mamba2Error {
  override name = 'TrainingError';
}

/** A file or folder that could not be written; nothing half written is left. */
export class SaveError extends Mamba2Error {
  override name = 'SaveError';
}

/** Use of something after its dispose(). */
export class DisposedError extends Mamba2Error {
  override name = 'DisposedError';
}
