/** Adapter folders: adapter_config.json and adapter_model.safetensors, as PEFT reads and writes them; of several, a folder each. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { type AtomicFile, writeAside, writeTogether } from '../base/whole_files.js';
import { decodeFloat32, encodeFloat32, isFloatDtype } from '../base/stored_dtypes.js';
import { openTorchContainer, parseConfigJson } from '../checkpoints/index.js';
import { openSafetensorsContainer } from '../checkpoints/shards.js';
import { isStored, type Weight } from '../layers/weights.js';
import { readTextIfThere } from '../base/files.js';
import { isThere } from '../base/regular_file.js';
import { plan, storageOrder, writeSafetensorsAside } from '../checkpoints/safetensors_writer.js';
import { ArgumentError, CheckpointError, SaveError } from '../base/errors.js';
import type { CausalLM } from '../models/causal_lm.js';
import type { LoraAdapter } from './adapter.js';
import { LoraConfig } from './config.js';
import { type AdapterValues, LOAD_TABLE, PeftModel, type PeftOptions } from './model.js';
import { plain, quote } from '../base/quote.js';
import { takeTokenRows, tokenIndices, type TokenIndices } from './token_rows.js';

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
      `Adapter '${plain(name)}' cannot have a folder of that name in ${dir}; give it another name, or save it by itself: save_adapter(peft, dir, name)`,
      { name },
    );
  return path.join(dir, name);
}

/** The key beside an adapter of a weight that replaces the base's. */
function besideKey(name: string, { modules, variables }: LoraAdapter, peft: PeftModel): string {
  const { names } = peft.base_model.network;
  if (modules.some(({ module }) => name === `${module}.weight`)) return name.replace(/\.weight$/, '.base_layer.weight');
  // of a tied model, whose embedding is trained whole: what the head is, then
  return variables.has(name) && name === names.embedding ? names.head : name;
}

/** Writes both files of an adapter aside. */
async function writeAdapterAside(
  adapter: LoraAdapter,
  peft: PeftModel,
  dir: string,
  aside: AtomicFile[],
): Promise<void> {
  const { variables, config } = adapter;

  try {
    await fs.promises.mkdir(dir, { recursive: true });
  } catch (error) {
    throw new SaveError(`Could not make the folder ${dir}: ${(error as Error).message}`, { dir }, { cause: error });
  }
  const beside = [...peft.replaced_weights()].map(
    ([name, variable]) => [besideKey(name, adapter, peft), variable] as const,
  );
  const planned = [...variables, ...beside].map(([key, variable]) =>
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
      for (const { adapter, place } of places) await writeAdapterAside(adapter, peft, place, aside);
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
  throw new CheckpointError(`${file}: active_adapters is ${quote(names)}, expected a list of names`, { file });
}

/** Reads adapter_config.json. @throws CheckpointError when it is not there, ConfigError for what it asks */
export async function read_adapter_config(dir: string): Promise<LoraConfig> {
  return LoraConfig.from_dict((await readConfig(dir)).fields);
}

/** The fields of adapter_config.json, and the ids whose rows the adapter's file replaces. */
async function readConfig(dir: string): Promise<{ fields: Record<string, unknown>; tokens: TokenIndices }> {
  const file = path.join(dir, ADAPTER_CONFIG);
  const text = await readTextIfThere(file);
  if (text === null) throw new CheckpointError(`${dir} has no ${ADAPTER_CONFIG}: it is not an adapter folder`, { dir });
  const fields = parseConfigJson(text, file);
  // PEFT sets it to false for every kind of module that a Mamba-2 has
  if (fields.fan_in_fan_out === true) fields.fan_in_fan_out = false;
  // trained biases are in the adapter's file under the base's names, and replace the base's
  if (fields.bias === 'all' || fields.bias === 'lora_only') fields.bias = 'none';
  const tokens = tokenIndices(fields.trainable_token_indices, file);
  delete fields.trainable_token_indices;
  return { fields, tokens };
}

/**
 * A tied head whose factors were trained as the embedding's (ensure_weight_tying). PEFT writes both into the file, and a configuration that
 * names the embedding alone; here the head has the factors that the file has.
 */
function namesSharedFactors(fields: Record<string, unknown>, values: AdapterValues, { network }: CausalLM): void {
  const head = network.names.head.replace(/\.weight$/, '');
  const tied = network.config.tie_word_embeddings && fields.ensure_weight_tying === true;
  if (!tied || !values.has(`${head}.lora_A.weight`)) return;
  const { target_modules: targets } = fields;
  fields.target_modules = Array.isArray(targets)
    ? [...new Set([...(targets as string[]), head])]
    : `(?:${String(targets)})|${head}`;
  fields.ensure_weight_tying = false;
}

/** Files of an adapter's tensors, the preferred one first. */
const WEIGHTS = [
  [ADAPTER_WEIGHTS, openSafetensorsContainer],
  ['adapter_model.bin', openTorchContainer],
] as const;

/**
 * The key of an adapter's tensor as PEFT saves it, without its prefix: some tools write none, some wrap the model, and a state dict that was
 * saved whole has the adapter's name in its keys. Null for the copy of what a module was before it was trained whole.
 */
function keyOf(name: string): string | null {
  const bare = name.replace(/^(?:module\.|_orig_mod\.|base_model\.model\.)+/, '');
  if (/\.original_module\.[^.]+$/.test(bare)) return null;
  return bare
    .replace(/\.(lora_[AB])\.[^.]+\.weight$/, '.$1.weight')
    .replace(/\.(lora_embedding_[AB])\.[^.]+$/, '.$1')
    .replace(/\.modules_to_save\.[^.]+\.([^.]+)$/, '.$1');
}

/** All tensors of an adapter file, by their keys. */
async function read_adapter_values(dir: string): Promise<AdapterValues> {
  const there = await Promise.all(WEIGHTS.map(([file]) => isThere(path.join(dir, file))));
  const [name, open] = WEIGHTS[there.indexOf(true)] ?? [];
  if (!name || !open)
    throw new CheckpointError(
      `${dir} has no ${ADAPTER_WEIGHTS}, nor an adapter_model.bin: the adapter has no weights`,
      {
        dir,
      },
    );
  const file = path.join(dir, name);
  const container = await open(file);
  try {
    const values = new Map<string, { shape: readonly number[]; data: Float32Array }>();
    for (const [name, tensor] of container.tensors) {
      const key = keyOf(name);
      if (key === null) continue;
      if (values.has(key))
        throw new CheckpointError(`${file}: tensor '${plain(name)}' is there twice, in two spellings`, {
          file,
          tensor: name,
        });
      if (!isFloatDtype(tensor.dtype))
        throw new CheckpointError(`${file}: tensor '${plain(name)}' is ${tensor.dtype}, expected a float type`, {
          file,
          tensor: name,
        });
      values.set(key, { shape: tensor.shape, data: decodeFloat32(await tensor.read(), tensor.dtype) });
    }
    return values;
  } finally {
    await container.close();
  }
}

/** The weight of the base that a tensor beside the adapter stands for; null when it is none. */
function baseWeight(key: string, peft: PeftModel): string | null {
  const { names, config } = peft.base_model.network;
  const name = key.replace('.base_layer.', '.');
  if (name === names.head && config.tie_word_embeddings) return names.embedding;
  return name in peft.frozen() ? name : null;
}

/** Takes those tensors out of `values` that stand for weights of the base. @returns them by the base's names */
function takeBaseWeights(
  dir: string,
  values: Map<string, { shape: readonly number[]; data: Float32Array }>,
  peft: PeftModel,
  { variables: own, stays_tied }: LoraAdapter,
): Map<string, Float32Array> {
  const found = new Map<string, Float32Array>();
  const { names } = peft.base_model.network;
  for (const [key, { shape, data }] of [...values]) {
    if (own.has(key)) continue;
    const name = baseWeight(key, peft);
    if (name === null) continue;
    const expected = peft.frozen()[name]!.shape;
    if (shape.join() !== expected.join()) {
      const vocabulary = name === names.embedding || name === names.head;
      throw new CheckpointError(
        `${dir}: '${plain(key)}' has shape [${shape.join(', ')}], but this base model's is [${expected.join(', ')}]. ` +
          (vocabulary
            ? `The adapter was trained with a vocabulary of ${shape[0]}, and a model is not resized here: resize the base as it was then (in transformers resize_token_embeddings(${shape[0]}) and save_pretrained), and load the adapter onto that.`
            : 'The adapter belongs to another one.'),
        { dir, key, got: shape, expected },
      );
    }
    found.set(name, data);
    values.delete(key);
  }
  // a head that stays tied is saved beside the embedding that is trained whole, with the same values
  if (stays_tied) found.delete(names.embedding);
  return found;
}

function sameValues(weight: Weight, values: Float32Array): boolean {
  return !isStored(weight) && weight.dataSync<'float32'>().every((value, i) => Object.is(value, values[i]));
}

/**
 * Reads an adapter folder onto a PeftModel, as one more adapter. Weights of the base that its file holds beside the adapter (PEFT's
 * save_embedding_layers), and rows of them (trainable_token_indices), take the place of the base's own, as in PEFT, while the PeftModel lives.
 * @throws CheckpointError naming file and tensor when tensors are missing or left over; ConfigError for shapes or features
 *   that do not fit
 */
export async function load_adapter(peft: PeftModel, dir: string, adapter_name = 'default'): Promise<void> {
  const { fields, tokens } = await readConfig(dir);
  const values = new Map(await read_adapter_values(dir));
  namesSharedFactors(fields, values, peft.base_model);
  peft.add_adapter(adapter_name, LoraConfig.from_dict(fields), { seed: 0, values });
  try {
    const adapter = peft.adapter(adapter_name);
    const keys = new Set(adapter.variables.keys());
    const base = takeBaseWeights(dir, values, peft, adapter);
    for (const [name, matrix] of takeTokenRows(dir, values, tokens, peft)) base.set(name, matrix);
    const missing = [...keys].filter((key) => !values.has(key));
    const left = [...values.keys()].filter((key) => !keys.has(key));
    if (missing.length + left.length > 0) {
      const say = (what: string, list: string[]): string => {
        const shown = list.slice(0, 5).map((key) => plain(key));
        return list.length ? ` ${what}: ${shown.join(', ')}${list.length > 5 ? ', …' : ''}.` : '';
      };
      throw new CheckpointError(
        `${dir}: the adapter's tensors do not fit its configuration and this model.${say('Missing', missing)}${say('Left over', left)}`,
        { dir, missing, left },
      );
    }
    for (const [name, data] of base) if (!sameValues(peft.frozen()[name]!, data)) peft.replaceBase(name, data);
  } catch (error) {
    peft.delete_adapter(adapter_name);
    throw error;
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
  LOAD_TABLE.check(options);
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
