/** trainer_state.json: what a snapshot says of its run, checked like any input before a run goes on from it. */
import * as path from 'node:path';
import { CheckpointError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { quote } from '../base/quote.js';
import { readJsonFile } from '../base/text_files.js';
import type { TrainerState } from './callbacks.js';

export const STATE_FILE = 'trainer_state.json';
/** Largest file that is read: some million entries of the log. */
const MOST_BYTES = 256 * 1024 * 1024;

type Fields = Readonly<Record<string, unknown>>;
/** The state of a run, and the updates that its optimizer made. */
export type SavedState = TrainerState & { optimizer_steps: number };

const count = kinds.integer({ min: 0 });
const finite = kinds.number();

/** @param most updates that the run has made: nothing of it lies beyond them */
function rules(most: number): Readonly<Record<string, kinds.Kind>> {
  const upTo = kinds.integer({ min: 0, max: most });
  const sum = kinds.named('{ loss: a number, steps: an integer of 0 or more }', (v) =>
    kinds.isPlain(v) ? finite.ok(v['loss']) && upTo.ok(v['steps']) : false,
  );
  return {
    optimizer_steps: count,
    max_steps: orMissing(count),
    // every pass over the data has one update at least
    epoch: kinds.number({ min: 0, max: most }),
    epoch_start: orMissing(upTo),
    since_log: orMissing(sum),
    num_input_tokens_seen: count,
    best_metric: orMissing(kinds.orNull(finite)),
    best_step: orMissing(kinds.orNull(upTo)),
    log_history: kinds.named('a list of entries: a step of the run, and numbers', (v) =>
      Array.isArray(v) ? v.every((entry) => isEntry(entry, upTo)) : false,
    ),
  };
}

/** Snapshots of earlier versions lack some. */
function orMissing(kind: kinds.Kind): kinds.Kind {
  return { expected: kind.expected, ok: (v) => v === undefined || kind.ok(v) };
}

function isEntry(entry: unknown, step: kinds.Kind): boolean {
  if (!kinds.isPlain(entry) || !step.ok(entry['step'])) return false;
  // what is not finite is null in JSON
  return Object.values(entry).every((value) => value === null || finite.ok(value));
}

/**
 * Reads the state of a snapshot.
 * @throws CheckpointError naming file and key: what is missing, of another kind, or contradicts the rest
 */
export async function readSavedState(dir: string): Promise<SavedState> {
  const file = path.join(dir, STATE_FILE);
  const state = await readJsonFile(file, CheckpointError, MOST_BYTES);
  const fail = (key: string, got: unknown, expected: string): never => {
    throw new CheckpointError(
      `${file}: ${key} is ${quote(got)}; expected ${expected}. The file is damaged; go on from another snapshot.`,
      { file, key, got, expected },
    );
  };
  if (!kinds.isPlain(state))
    throw new CheckpointError(`${file} holds ${quote(state)}; expected the state of a training run.`, { file });
  const fields: Fields = state;
  const step = fields['global_step'];
  if (!count.ok(step)) fail('global_step', step, count.expected);
  const named = /^checkpoint-(\d+)$/.exec(path.basename(path.resolve(dir)))?.[1];
  if (named !== undefined && Number(named) !== step) fail('global_step', step, `${named}, as the folder is called`);
  const found: Record<string, unknown> = { global_step: step, max_steps: 0, best_metric: null, best_step: null };
  for (const [key, kind] of Object.entries(rules(step as number))) {
    if (!kind.ok(fields[key])) fail(key, fields[key], kind.expected);
    if (fields[key] !== undefined) found[key] = fields[key];
  }
  return found as unknown as SavedState;
}
