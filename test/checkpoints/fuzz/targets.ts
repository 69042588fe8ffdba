/**
 * Readers of model folders, adapters, states, snapshots of training and data, for damaged files (test/support/fuzz.ts). Tokenizers' files are
 * in test/tokenizers/fuzz.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { openCheckpoint, validateCheckpoint } from '../../../src/models/checkpoints.js';
import { loadCheckpoint } from '../../../src/models/mamba2/pretrained.js';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/causal_lm.js';
import { Mamba2State, quantizeCheckpoint } from '../../../src/models/mamba2/index.js';
import { exportLayersModel } from '../../../src/models/mamba2/tfjs_export.js';
import { Int8WeightOnlyConfig } from '../../../src/quant/index.js';
import { restoreQuantized } from '../../../src/engine/quantized_weights.js';
import { GenerationConfig } from '../../../src/generation/config.js';
import { get_peft_model, load_peft_model, save_adapter } from '../../../src/peft/index.js';
import { inspectState, readStateFile } from '../../../src/engine/states/file.js';
import { createStep, trainableOf } from '../../../src/training/index.js';
import { loadSnapshot, saveSnapshot } from '../../../src/training/snapshots.js';
import { loadExamples } from '../../../src/training/data/readers.js';
import type { FuzzTarget, FuzzTargets } from '../../support/fuzz.js';
import type { TrainerState } from '../../../src/training/callbacks.js';

const FORMATS = 'test/fixtures/goldens/formats';
const folder = fs.mkdtempSync(path.join(process.env.FUZZ_FOLDER ?? os.tmpdir(), 'files-'));
process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
await tf.setBackend('cpu');

type Kind = FuzzTarget['kind'];

/** A file of a folder that is whole otherwise, read as part of it. */
function inFolder(kind: Kind, from: string, file: string, read: (dir: string) => Promise<unknown>): FuzzTarget {
  const dir = path.join(folder, `${from}-${file}`.replaceAll('/', '-'));
  return {
    kind,
    samples: () => {
      fs.cpSync(from, dir, { recursive: true });
      return [fs.readFileSync(path.join(from, file))];
    },
    attempt: (bytes) => {
      fs.writeFileSync(path.join(dir, file), bytes);
      return read(dir);
    },
  };
}

/** All of a model folder that is read without a model. */
async function readModel(dir: string): Promise<void> {
  const { config, source } = await loadCheckpoint(dir);
  try {
    config.mixerArgs();
    if (source.config.quantization_config) {
      const model = new Mamba2ForCausalLM(config, source, { engine: 'eager' });
      try {
        await restoreQuantized(model.weights);
      } finally {
        model.dispose();
      }
      return;
    }
    await validateCheckpoint(source);
    for (const name of source.tensors.keys()) await source.readFloat32(name);
  } finally {
    await source.close();
  }
}

const model = (from: string, file: string, kind: Kind = file.endsWith('.json') ? 'json' : 'bytes'): FuzzTarget =>
  inFolder(kind, from, file, readModel);

/** A folder made anew for a target, by the package itself. */
function made(
  make: (dir: string) => Promise<unknown>,
  kind: Kind,
  file: string,
  read: (dir: string) => Promise<unknown>,
): FuzzTarget {
  const dir = path.join(folder, `made-${file}`);
  return {
    kind,
    samples: async () => {
      fs.rmSync(dir, { recursive: true, force: true }); // another kind's
      fs.mkdirSync(dir, { recursive: true });
      await make(dir);
      return [fs.readFileSync(path.join(dir, file))];
    },
    attempt: (bytes) => {
      fs.writeFileSync(path.join(dir, file), bytes);
      return read(dir);
    },
  };
}

let shared: Promise<Mamba2ForCausalLM> | null = null;
/** The small model that adapters, states and snapshots belong to. */
const small = (): Promise<Mamba2ForCausalLM> =>
  (shared ??= Mamba2ForCausalLM.from_pretrained('test/fixtures/lora-saved/base-untied', { engine: 'eager' }));

async function readAdapter(dir: string): Promise<void> {
  const peft = await load_peft_model(await small(), dir);
  peft.dispose();
}
const adapter = (from: string, file: string): FuzzTarget =>
  inFolder(file.endsWith('.json') ? 'json' : 'bytes', `test/fixtures/lora-saved/${from}`, file, readAdapter);

async function writeSeveral(dir: string): Promise<void> {
  const peft = get_peft_model(await small(), { r: 2 }, { seed: 1 });
  peft.add_adapter('other', peft.peft_config.default!, { seed: 2 });
  peft.set_adapter(['default', 'other']);
  await save_adapter(peft, dir);
  peft.dispose();
}

const STATE = 'state.safetensors';
async function writeState(dir: string): Promise<void> {
  const state = await (await small()).prefill([[3, 4, 5], [6]]);
  await state.save(path.join(dir, STATE), { note: 'x' });
  state.dispose();
}
async function readState(dir: string): Promise<void> {
  const { weights } = await small();
  await inspectState(path.join(dir, STATE));
  await readStateFile(path.join(dir, STATE), weights);
  (await Mamba2State.load(await small(), path.join(dir, STATE))).dispose();
}

let training: Awaited<ReturnType<typeof makeStep>> | null = null;
async function makeStep() {
  const peft = get_peft_model(await small(), { r: 2 }, { seed: 1 });
  return { peft, step: createStep(trainableOf(peft), { engine: 'eager' }) };
}
async function writeSnapshot(dir: string): Promise<void> {
  training ??= await makeStep();
  const state: TrainerState = {
    global_step: 3,
    max_steps: 10,
    epoch: 0,
    log_history: [{ step: 1, epoch: 0.1, loss: 2.5 }],
    num_input_tokens_seen: 96,
    best_metric: null,
    best_step: null,
  };
  const made = await saveSnapshot(training.peft, training.step, state, dir, null);
  for (const file of fs.readdirSync(made)) fs.renameSync(path.join(made, file), path.join(dir, file));
}
async function readSnapshot(dir: string): Promise<void> {
  const { peft, step } = training!;
  await loadSnapshot(peft, step, dir);
}

/** A file of examples. */
function data(extension: string, samples: readonly string[] | (() => Uint8Array[]), kind: Kind = 'bytes'): FuzzTarget {
  const file = path.join(folder, `data${extension}`);
  return {
    kind,
    samples: () => (typeof samples === 'function' ? samples() : samples.map((text) => Buffer.from(text))),
    attempt: (bytes) => {
      fs.writeFileSync(file, bytes);
      return loadExamples(file);
    },
  };
}

const row = (i: number): Record<string, unknown> => ({
  text: `line ${i} ü`,
  messages: [{ role: 'user', content: 'x' }],
});
const rows = Array.from({ length: 8 }, (_, i) => row(i));
const SINGLE = `${FORMATS}/single`;

async function writeQuantised(dir: string): Promise<void> {
  await quantizeCheckpoint(SINGLE, dir, new Int8WeightOnlyConfig());
}

async function writeLayers(dir: string): Promise<void> {
  const source = await openCheckpoint(SINGLE);
  await exportLayersModel(source, dir);
  await source.close();
  fs.rmSync(path.join(dir, 'config.json'));
}

export const fuzzTargets: FuzzTargets = {
  'config.json (Hugging Face)': model(`${FORMATS}/single`, 'config.json'),
  'config.json (state-spaces)': model(`${FORMATS}/state-spaces`, 'config.json'),
  'config.json (quantised)': made(writeQuantised, 'json', 'config.json', readModel),
  'model.safetensors': model(`${FORMATS}/single`, 'model.safetensors'),
  'model.safetensors (quantised)': made(writeQuantised, 'bytes', 'model.safetensors', readModel),
  'model.json': made(writeLayers, 'json', 'model.json', readModel),
  'group1-shard1of1.bin': made(writeLayers, 'bytes', 'group1-shard1of1.bin', readModel),
  'model.safetensors.index.json': model(`${FORMATS}/sharded`, 'model.safetensors.index.json'),
  'pytorch_model.bin': model(`${FORMATS}/state-spaces`, 'pytorch_model.bin'),
  'params.json': model(`${FORMATS}/codestral-native`, 'params.json'),
  'consolidated.safetensors': model(`${FORMATS}/codestral-native`, 'consolidated.safetensors'),
  'generation_config.json': inFolder('json', 'models/tiny-books-mamba2', 'generation_config.json', async (dir) =>
    (await GenerationConfig.from_pretrained(dir, {})).to_dict(),
  ),
  'adapter_config.json': adapter('both', 'adapter_config.json'),
  'adapter_model.safetensors': adapter('saved-changed', 'adapter_model.safetensors'),
  'adapter_model.bin': adapter('bin', 'adapter_model.bin'),
  'active_adapters.json': made(writeSeveral, 'json', 'active_adapters.json', readAdapter),
  'state.safetensors': made(writeState, 'bytes', STATE, readState),
  'trainer_state.json': made(writeSnapshot, 'json', 'trainer_state.json', readSnapshot),
  'training_state.safetensors': made(writeSnapshot, 'bytes', 'training_state.safetensors', readSnapshot),
  '.jsonl': data('.jsonl', [rows.map((one) => JSON.stringify(one)).join('\n')]),
  '.json': data('.json', [JSON.stringify(rows)], 'json'),
  '.csv': data('.csv', ['text,n,ok\none ü,1,true\n"two, ""2""\nlines",2.5,\nNA,-3e2,false\n😀,4,True\n']),
  '.txt': data('.txt', ['one\ntwo ü\n\nthree\r\n😀\n']),
  '.parquet': data('.parquet', () =>
    [
      ...['snappy', 'zstd'].map((codec) => `quotes-${codec}`),
      ...['v1-none', 'v2-gzip', 'v1-delta', 'v2-lengths'].map((name) => `parquet/${name}`),
    ].map((name) => fs.readFileSync(`test/fixtures/data/${name}.parquet`)),
  ),
};
