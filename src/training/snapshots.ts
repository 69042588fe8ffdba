/**
 * Snapshots of a run: folders checkpoint-N, as transformers names them, with the model (or adapter), the optimizer's moments and the
 * state. A folder gets its name only when it is whole, and an older one goes only after that: a crash at any moment leaves the last
 * good one.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import type * as tf from '@tensorflow/tfjs';
import { someAtATime } from '../base/some_at_a_time.js';
import { isFloatDtype } from '../base/stored_dtypes.js';
import { unfinishedUntil } from '../base/stop_signals.js';
import { SafetensorsFile, writeSafetensors } from '../checkpoints/index.js';
import { replaceFolder, saveError, writeFileAtomic } from '../base/whole_files.js';
import { CheckpointError, TrainingError } from '../base/errors.js';
import { plain } from '../base/quote.js';
import type { TrainerState } from './callbacks.js';
import { readSavedState, STATE_FILE } from './saved_state.js';
import { saveModel } from './save_model.js';
import { inType } from '../engine/file_tensors.js';
import { assignAll, type Moments, type TrainingStep } from './step.js';
import { causalOf, type TrainableModel, trainableOf } from './trainable.js';

const TENSORS_FILE = 'training_state.safetensors';
const NAME = /^checkpoint-(\d+)$/;
/** One that is being written, or deleted. */
const ASIDE = /^\.checkpoint-\d+\.part$/;
/** One whose name another is about to get. */
const REPLACED = /^\.(checkpoint-\d+)\.old$/;

/** The snapshots of a folder, oldest first. */
export function listCheckpoints(dir: string): { dir: string; step: number }[] {
  if (!fs.existsSync(dir)) return [];
  return fs
    .readdirSync(dir)
    .flatMap((name) => {
      const found = NAME.exec(name);
      return found && fs.existsSync(path.join(dir, name, STATE_FILE))
        ? [{ dir: path.join(dir, name), step: Number(found[1]) }]
        : [];
    })
    .sort((a, b) => a.step - b.step);
}

async function remove(dir: string): Promise<void> {
  await fs.promises.rm(dir, { recursive: true, force: true });
}

/** Removes what a killed run left half written, and gives a snapshot its name back that was about to be replaced. */
export async function removeUnfinished(dir: string): Promise<void> {
  if (!fs.existsSync(dir)) return;
  for (const name of await fs.promises.readdir(dir)) {
    const replaced = REPLACED.exec(name);
    if (replaced && !fs.existsSync(path.join(dir, replaced[1]!)))
      await fs.promises.rename(path.join(dir, name), path.join(dir, replaced[1]!));
    else if (replaced || ASIDE.test(name)) await remove(path.join(dir, name));
  }
}

/**
 * Writes checkpoint-N.
 * @param limit snapshots kept, this one included; null for all
 * @returns its folder
 * @throws SaveError; earlier snapshots are untouched
 */
export async function saveSnapshot(
  model: TrainableModel,
  step: TrainingStep,
  state: TrainerState,
  dir: string,
  limit: number | null,
): Promise<string> {
  const name = `checkpoint-${state.global_step}`;
  const [aside, replaced, final] = [`.${name}.part`, `.${name}.old`, name].map((n) => path.join(dir, n)) as [
    string,
    string,
    string,
  ];
  await step.sync();
  const settled = unfinishedUntil(aside);
  try {
    await remove(aside);
    await fs.promises.mkdir(aside, { recursive: true });
    await saveModel(model, aside);
    const tensors = [...trainableOf(model).trainable()].flatMap(([key, variable]) => {
      const one = (prefix: string, read: () => Promise<Float32Array>) => ({
        name: `${prefix}${key}`,
        dtype: 'F32' as const,
        shape: variable.shape,
        data: async () => {
          const { buffer, byteOffset, byteLength } = await read();
          return new Uint8Array(buffer, byteOffset, byteLength);
        },
      });
      return [
        one('value.', () => variable.data<'float32'>()),
        one('first.', async () => (await step.moments(key)).first),
        one('second.', async () => (await step.moments(key)).second),
      ];
    });
    await writeSafetensors(path.join(aside, TENSORS_FILE), tensors);
    await writeFileAtomic(
      path.join(aside, STATE_FILE),
      `${JSON.stringify({ ...state, optimizer_steps: step.steps }, null, 2)}\n`,
    );
    // an earlier run's of this name stays until the new one has the name: one of them is whole at any moment
    await replaceFolder(aside, final, replaced);
  } catch (error) {
    await remove(aside).catch(() => undefined);
    throw saveError(final, error);
  } finally {
    settled();
  }
  if (limit !== null) {
    const old = listCheckpoints(dir).filter((c) => c.step < state.global_step);
    for (const { dir: folder, step: of } of old.slice(0, Math.max(0, old.length - (limit - 1)))) {
      // a folder that is half deleted has no snapshot's name
      const going = path.join(dir, `.checkpoint-${of}.part`);
      const gone = unfinishedUntil(going);
      try {
        await remove(going);
        await fs.promises.rename(folder, going);
        await remove(going);
      } finally {
        gone();
      }
    }
  }
  return final;
}

/** The three tensors of a trained variable. */
const PARTS = ['value', 'first', 'second'] as const;

/** Whether the tensors of a snapshot are those of a model. @throws TrainingError otherwise */
function checkTensors(dir: string, tensors: SafetensorsFile, variables: ReadonlyMap<string, tf.Variable>): void {
  const other = 'the snapshot is of another model or adapter';
  if (tensors.entries.size !== PARTS.length * variables.size) {
    throw new TrainingError(
      `${dir}: holds ${tensors.entries.size / PARTS.length} trained tensors, the model has ${variables.size}; ${other}`,
      { dir },
    );
  }
  for (const [key, { shape }] of variables) {
    for (const name of PARTS.map((part) => `${part}.${key}`)) {
      const entry = tensors.entries.get(name);
      if (!entry || entry.shape.join() !== shape.join()) {
        throw new TrainingError(
          `${dir}: '${name}' ${entry ? `has shape [${entry.shape}], the model's has [${shape}]` : 'is missing'}; ${other}`,
          { dir, name },
        );
      }
      if (!isFloatDtype(entry.dtype))
        throw new CheckpointError(`${dir}: '${name}' is ${plain(entry.dtype)}, expected a float type.`, { dir, name });
    }
  }
}

/**
 * Brings parameters, moments and state back, bit for bit.
 * @throws CheckpointError when files are missing or damaged, naming file and key; TrainingError when the snapshot is of
 *   another model. The model is then as it was.
 */
export async function loadSnapshot(model: TrainableModel, step: TrainingStep, dir: string): Promise<TrainerState> {
  if (!fs.existsSync(path.join(dir, STATE_FILE)))
    throw new CheckpointError(`${dir} has no ${STATE_FILE}: it is not a snapshot of a training run`, { dir });
  const { optimizer_steps, ...state } = await readSavedState(dir);
  const file = path.join(dir, TENSORS_FILE);
  const tensors = await SafetensorsFile.open(file);
  try {
    const variables = trainableOf(model).trainable();
    checkTensors(dir, tensors, variables);
    const read = async (part: (typeof PARTS)[number], key: string): Promise<Float32Array> => {
      const name = `${part}.${key}`;
      const { buffer, byteOffset, byteLength } = await inType(
        await tensors.read(name),
        tensors.entries.get(name)!.dtype,
        'F32',
      );
      const values = new Float32Array(buffer, byteOffset, byteLength / 4);
      // second moments are means of squares
      const least = part === 'second' ? 0 : -Infinity;
      await someAtATime(values.length, (begin, end) => {
        for (let at = begin; at < end; at++) {
          if (values[at]! >= least && Number.isFinite(values[at])) continue;
          throw new CheckpointError(
            `${file}: '${name}' holds ${values[at]} at ${at}; expected numbers${least === 0 ? ' of 0 or more' : ''}. The file is damaged; go on from another snapshot.`,
            { file, name, at },
          );
        }
      });
      return values;
    };
    // all are read before any is changed
    const values: Float32Array[] = [];
    const moments = new Map<string, Moments>();
    for (const key of variables.keys()) {
      values.push(await read('value', key));
      moments.set(key, { first: await read('first', key), second: await read('second', key) });
    }
    await causalOf(model).weights.turns.take(() => assignAll(variables.values(), values));
    await step.refresh();
    await step.restore(optimizer_steps, (key) => moments.get(key)!);
    return state;
  } finally {
    await tensors.close();
  }
}
