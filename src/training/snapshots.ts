/**
 * Snapshots of a run: folders checkpoint-N, as transformers names them, with the model (or adapter), the optimizer's moments and the
 * state. A folder gets its name only when it is whole, and an older one goes only after that: a crash at any moment leaves the last
 * good one.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { decodeFloat32, encodeFloat32 } from '../base/stored_dtypes.js';
import { SafetensorsFile, writeSafetensors } from '../checkpoints/index.js';
import { replaceFolder, saveError, writeFileAtomic } from '../base/whole_files.js';
import { CheckpointError, TrainingError } from '../base/errors.js';
import { readJsonFile } from '../base/text_files.js';
import { PeftModel, save_adapter } from '../peft/index.js';
import type { TrainerState } from './callbacks.js';
import type { TrainingStep } from './step.js';
import { type TrainableModel, trainableOf } from './trainable.js';

const STATE_FILE = 'trainer_state.json';
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

/** Writes the model, or the adapter that is trained, into a folder. */
export async function saveModel(model: TrainableModel, dir: string): Promise<void> {
  if (model instanceof PeftModel) await save_adapter(model, dir);
  else await model.save_pretrained(dir, { dtype: 'float32' });
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
  step.sync();
  try {
    await remove(aside);
    await fs.promises.mkdir(aside, { recursive: true });
    await saveModel(model, aside);
    const tensors = [...trainableOf(model).trainable()].flatMap(([key, variable]) => {
      const one = (prefix: string, read: () => Float32Array) => ({
        name: `${prefix}${key}`,
        dtype: 'F32' as const,
        shape: variable.shape,
        data: () => encodeFloat32(read(), 'F32'),
      });
      return [
        one('value.', () => variable.dataSync<'float32'>()),
        one('first.', () => step.moments(key).first),
        one('second.', () => step.moments(key).second),
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
  }
  if (limit !== null) {
    const old = listCheckpoints(dir).filter((c) => c.step < state.global_step);
    for (const { dir: folder, step: of } of old.slice(0, Math.max(0, old.length - (limit - 1)))) {
      // a folder that is half deleted has no snapshot's name
      const going = path.join(dir, `.checkpoint-${of}.part`);
      await remove(going);
      await fs.promises.rename(folder, going);
      await remove(going);
    }
  }
  return final;
}

/**
 * Brings parameters, moments and state back, bit for bit.
 * @throws CheckpointError when files are missing, TrainingError when the snapshot is of another model
 */
export async function loadSnapshot(model: TrainableModel, step: TrainingStep, dir: string): Promise<TrainerState> {
  const file = path.join(dir, STATE_FILE);
  if (!fs.existsSync(file))
    throw new CheckpointError(`${dir} has no ${STATE_FILE}: it is not a snapshot of a training run`, { dir });
  const { optimizer_steps, ...state } = (await readJsonFile(file, CheckpointError)) as TrainerState & {
    optimizer_steps: number;
  };
  const tensors = await SafetensorsFile.open(path.join(dir, TENSORS_FILE));
  try {
    const variables = trainableOf(model).trainable();
    const read = (name: string, variable: tf.Variable): Float32Array => {
      const entry = tensors.entries.get(name);
      if (!entry || entry.shape.join() !== variable.shape.join()) {
        throw new TrainingError(
          `${dir}: '${name}' ${entry ? `has shape [${entry.shape}], the model's has [${variable.shape}]` : 'is missing'}; the snapshot is of another model or adapter`,
          { dir, name },
        );
      }
      return decodeFloat32(tensors.readSync(name), entry.dtype);
    };
    if (tensors.entries.size !== 3 * variables.size) {
      throw new TrainingError(
        `${dir}: holds ${tensors.entries.size / 3} trained tensors, the model has ${variables.size}; the snapshot is of another model or adapter`,
        { dir },
      );
    }
    for (const [key, variable] of variables) {
      const value = tf.tensor(read(`value.${key}`, variable), variable.shape);
      variable.assign(value);
      value.dispose();
    }
    step.refresh();
    await step.restore(optimizer_steps, (key) => {
      const variable = variables.get(key)!;
      return { first: read(`first.${key}`, variable), second: read(`second.${key}`, variable) };
    });
    return state;
  } finally {
    await tensors.close();
  }
}
