/** Adapter folders: adapter_config.json and adapter_model.safetensors, as PEFT reads and writes them; of several, a folder each. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { type AtomicFile, writeAside, writeTogether } from '../base/whole_files.js';
import { decodeFloat32, encodeFloat32, isFloatDtype } from '../base/stored_dtypes.js';
import { parseConfigJson, SafetensorsFile } from '../checkpoints/index.js';
import { readTextIfThere } from '../base/files.js';
import { plan, storageOrder, writeSafetensorsAside } from '../checkpoints/safetensors_writer.js';
import { ArgumentError, CheckpointError, SaveError } from '../base/errors.js';
import type { CausalLM } from '../models/causal_lm.js';
import type { LoraAdapter } from './adapter.js';
import { LoraConfig } from './config.js';
import { type AdapterValues, PeftModel, type PeftOptions } from './model.js';

const PREFIX = 'base_model.model.';
export const ADAPTER_CONFIG = 'adapter_config.json';
export const ADAPTER_WEIGHTS = 'adapter_model.safetensors';

/** Lists the adapters of a folder with several; PEFT passes over it. */
const SEVERAL = 'active_adapters.json';
/** The adapter that is in the folder itself where there are several. */
const ROOT = 'default';

/** Where PEFT has one of several adapters: 'default' in the folder itself, others in a folder of their name in it. */
function placeOf(dir: string, name: string): string {
  if (name === ROOT) return dir;
  if (name === '' || name.startsWith('.') || /[/\\\0]/.test(name))
    throw new ArgumentError(
      `Adapter '${name}' cannot have a folder of that name in ${dir}; give it another name, or save it by itself: save_adapter(peft, dir, name)`,
      { name },
    );
  return path.join(dir, name);
}

/** Writes both files of an adapter aside. */
async function writeAdapterAside({ variables, config }: LoraAdapter, dir: string, aside: AtomicFile[]): Promise<void> {
  try {
    await fs.promises.mkdir(dir, { recursive: true });
  } catch (error) {
    throw new SaveError(`Could not make the folder ${dir}: ${(error as Error).message}`, { dir }, { cause: error });
  }
  const planned = [...variables].map(([key, variable]) =>
    plan({
      name: PREFIX + key,
      dtype: 'F32',
      shape: variable.shape,
      data: async () => encodeFloat32((await variable.data()) as Float32Array, 'F32'),
    }),
  );
  const metadata = { format: 'pt' };
  aside.push(await writeSafetensorsAside(path.join(dir, ADAPTER_WEIGHTS), storageOrder(planned), { metadata }));
  aside.push(await writeJsonAside(path.join(dir, ADAPTER_CONFIG), config.to_dict()));
}

function writeJsonAside(file: string, value: unknown): Promise<AtomicFile> {
  return writeAside(file, `${JSON.stringify(value, null, 2)}\n`);
}

/**
 * Writes an adapter folder that PEFT's PeftModel.from_pretrained reads. Of several active adapters each is written, where
 * PEFT has them: 'default' into the folder itself, others into folders of their names in it. All files are written aside
 * and renamed.
 * @param dir made when it is not there
 * @param adapter_name this one alone, into the folder itself. Default: those that are active
 * @throws SaveError, ArgumentError; nothing half written is left
 * @example await save_adapter(peft, 'my-adapter');
 */
export async function save_adapter(peft: PeftModel, dir: string, adapter_name?: string): Promise<void> {
  const { selected_adapters: active } = peft;
  const first = (): string[] => [adapter_name ?? Object.keys(peft.peft_config)[0] ?? ''];
  const names = adapter_name === undefined && active.length > 0 ? active : first();
  const several = names.length > 1;
  const places = names.map((name) => ({ adapter: peft.adapter(name), place: several ? placeOf(dir, name) : dir }));
  try {
    await writeTogether(async (aside) => {
      for (const { adapter, place } of places) await writeAdapterAside(adapter, place, aside);
      if (several) aside.push(await writeJsonAside(path.join(dir, SEVERAL), { active_adapters: names }));
    });
  } catch (error) {
    // those that are empty
    for (const { place } of places) if (place !== dir) await fs.promises.rmdir(place).catch(() => undefined);
    throw error;
  }
  // what an earlier save left would be read instead
  const stale = !several ? [SEVERAL] : names.includes(ROOT) ? [] : [ADAPTER_CONFIG, ADAPTER_WEIGHTS];
  for (const file of stale) await fs.promises.rm(path.join(dir, file), { force: true });
}

/** Names of the adapters of a folder with several; null for a folder with one. @throws CheckpointError */
async function readSeveral(dir: string): Promise<string[] | null> {
  const file = path.join(dir, SEVERAL);
  const text = await readTextIfThere(file);
  if (text === null) return null;
  const names = parseConfigJson(text, file)['active_adapters'];
  if (Array.isArray(names) && names.length > 0 && names.every((name) => typeof name === 'string')) return names;
  throw new CheckpointError(`${file}: active_adapters is ${JSON.stringify(names)}, expected a list of names`, { file });
}

/** Reads adapter_config.json. @throws CheckpointError when it is not there, ConfigError for what it asks */
export async function read_adapter_config(dir: string): Promise<LoraConfig> {
  const file = path.join(dir, ADAPTER_CONFIG);
  const text = await readTextIfThere(file);
  if (text === null) throw new CheckpointError(`${dir} has no ${ADAPTER_CONFIG}: it is not an adapter folder`, { dir });
  return new LoraConfig(parseConfigJson(text, file));
}

/** All tensors of an adapter file, under their keys without PEFT's prefix. */
async function read_adapter_values(dir: string): Promise<AdapterValues> {
  const path_ = path.join(dir, ADAPTER_WEIGHTS);
  if (!fs.existsSync(path_)) {
    throw new CheckpointError(
      `${dir} has no ${ADAPTER_WEIGHTS}; adapters in adapter_model.bin must be saved anew by PEFT with safe_serialization`,
      { dir },
    );
  }
  const file = await SafetensorsFile.open(path_);
  try {
    const values = new Map<string, { shape: readonly number[]; data: Float32Array }>();
    for (const [name, { dtype, shape }] of file.entries) {
      if (!name.startsWith(PREFIX))
        throw new CheckpointError(`${path_}: tensor '${name}' does not begin with '${PREFIX}'`, {
          file: path_,
          tensor: name,
        });
      if (!isFloatDtype(dtype))
        throw new CheckpointError(`${path_}: tensor '${name}' is ${dtype}, expected a float type`, {
          file: path_,
          tensor: name,
        });
      values.set(name.slice(PREFIX.length), { shape, data: decodeFloat32(await file.read(name), dtype) });
    }
    return values;
  } finally {
    await file.close();
  }
}

/**
 * Reads an adapter folder onto a PeftModel, as one more adapter.
 * @throws CheckpointError naming file and tensor when tensors are missing or left over; ConfigError for shapes or features
 *   that do not fit
 */
export async function load_adapter(peft: PeftModel, dir: string, adapter_name = 'default'): Promise<void> {
  const config = await read_adapter_config(dir);
  const values = new Map(await read_adapter_values(dir));
  // PEFT stores the base weight of an adapted head beside the adapter
  for (const key of [...values.keys()].filter((k) => k.endsWith('.base_layer.weight'))) {
    const base = peft.frozen()[key.replace('.base_layer.', '.')];
    const data = base && 'dataSync' in base ? base.dataSync() : null;
    if (data && data.some((v, i) => Math.abs(v - values.get(key)!.data[i]!) > 1e-2 * Math.abs(v) + 1e-4)) {
      throw new CheckpointError(
        `${dir}: '${key}' is not the weight of this base model; the adapter belongs to another one`,
        { dir, key },
      );
    }
    values.delete(key);
  }
  peft.add_adapter(adapter_name, config, { seed: 0, values });
  const keys = new Set(peft.adapter(adapter_name).variables.keys());
  const missing = [...keys].filter((key) => !values.has(key));
  const left = [...values.keys()].filter((key) => !keys.has(key));
  if (missing.length + left.length > 0) {
    peft.delete_adapter(adapter_name);
    const say = (what: string, list: string[]): string =>
      list.length ? ` ${what}: ${list.slice(0, 5).join(', ')}${list.length > 5 ? ', …' : ''}.` : '';
    throw new CheckpointError(
      `${dir}: the adapter's tensors do not fit its configuration and this model.${say('Missing', missing)}${say('Left over', left)}`,
      {
        dir,
        missing,
        left,
      },
    );
  }
}

/**
 * A model with an adapter read from a folder; with several, all active, when save_adapter wrote several there.
 * @throws CheckpointError, ConfigError as load_adapter does; the model is then as it was
 * @example const peft = await load_peft_model(model, 'my-adapter');
 */
export async function load_peft_model<M extends CausalLM>(
  model: M,
  dir: string,
  options: PeftOptions = {},
): Promise<PeftModel<M>> {
  const { adapter_name: wanted } = options;
  const several = await readSeveral(dir);
  if (several && wanted !== undefined && !several.includes(wanted))
    throw new CheckpointError(`${dir} has no adapter '${wanted}'; it has ${several.join(', ')}`, {
      dir,
      adapter_name: wanted,
    });
  const peft = new PeftModel(model, options.on_warning);
  try {
    if (!several) await load_adapter(peft, dir, wanted);
    else {
      const names = wanted === undefined ? several : [wanted];
      for (const name of names) await load_adapter(peft, placeOf(dir, name), name);
      peft.set_adapter(names);
    }
    return peft;
  } catch (error) {
    peft.dispose();
    throw error;
  }
}
