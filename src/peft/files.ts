/** Adapter folders: adapter_config.json and adapter_model.safetensors, as PEFT reads and writes them. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import {
  AtomicFile,
  decodeFloat32,
  encodeFloat32,
  isFloatDtype,
  parseConfigJson,
  readTextIfThere,
  SafetensorsFile,
} from '../checkpoints/index.js';
import { plan, storageOrder, writeSafetensorsAside } from '../checkpoints/safetensors-writer.js';
import { CheckpointError, SaveError } from '../errors/index.js';
import type { Mamba2ForCausalLM } from '../models/mamba2/index.js';
import { LoraConfig } from './config.js';
import { type AdapterValues, PeftModel, type PeftOptions } from './model.js';

const PREFIX = 'base_model.model.';
export const ADAPTER_CONFIG = 'adapter_config.json';
export const ADAPTER_WEIGHTS = 'adapter_model.safetensors';

/**
 * Writes an adapter folder that PEFT's PeftModel.from_pretrained reads. Both files are written aside and renamed.
 * @param dir made when it is not there
 * @throws SaveError; nothing half written is left
 * @example await save_adapter(peft, 'my-adapter');
 */
export async function save_adapter(peft: PeftModel, dir: string, adapter_name?: string): Promise<void> {
  const name = adapter_name ?? peft.active_adapters[0] ?? Object.keys(peft.peft_config)[0] ?? '';
  const adapter = peft.adapter(name);
  try {
    await fs.promises.mkdir(dir, { recursive: true });
  } catch (error) {
    throw new SaveError(`Could not make the folder ${dir}: ${(error as Error).message}`, { dir }, { cause: error });
  }
  const planned = [...adapter.variables].map(([key, variable]) =>
    plan({
      name: PREFIX + key,
      dtype: 'F32',
      shape: variable.shape,
      data: async () => encodeFloat32((await variable.data()) as Float32Array, 'F32'),
    }),
  );
  const weights = await writeSafetensorsAside(path.join(dir, ADAPTER_WEIGHTS), storageOrder(planned), {
    metadata: { format: 'pt' },
  });
  let config: AtomicFile | null = null;
  try {
    config = await AtomicFile.create(path.join(dir, ADAPTER_CONFIG));
    await config.write(new TextEncoder().encode(`${JSON.stringify(adapter.config.to_dict(), null, 2)}\n`));
    await config.finish();
    await weights.commit();
    await config.commit();
  } catch (error) {
    await weights.abort();
    await config?.abort();
    throw error;
  }
}

/** Reads adapter_config.json. @throws CheckpointError when it is not there, ConfigError for what it asks */
export async function read_adapter_config(dir: string): Promise<LoraConfig> {
  const file = path.join(dir, ADAPTER_CONFIG);
  const text = await readTextIfThere(file);
  if (text === null) throw new CheckpointError(`${dir} has no ${ADAPTER_CONFIG}: it is not an adapter folder`, { dir });
  return new LoraConfig(parseConfigJson(text, file));
}

/** All tensors of an adapter file, under their keys without PEFT's prefix. */
export async function read_adapter_values(dir: string): Promise<AdapterValues> {
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
 * A model with an adapter read from a folder.
 * @example const peft = await load_peft_model(model, 'my-adapter');
 */
export async function load_peft_model(
  model: Mamba2ForCausalLM,
  dir: string,
  options: PeftOptions = {},
): Promise<PeftModel> {
  const peft = new PeftModel(model, options.onWarning);
  await load_adapter(peft, dir, options.adapter_name);
  return peft;
}
