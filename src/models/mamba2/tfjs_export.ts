/** A checkpoint as a folder that tf.loadLayersModel reads, without ever building the model in memory. */
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import {
  companionFiles,
  convertedConfig,
  convertedTensors,
  refuseOwnFolder,
  refuseQuantized,
  type ConvertOptions,
  type ConvertReport,
} from '../../checkpoints/convert.js';
import { findWeights } from '../../checkpoints/open.js';
import type { CheckpointSource } from '../../checkpoints/source.js';
import { saveTfjs } from '../../checkpoints/tfjs.js';
import { ArgumentError } from '../../base/errors.js';
import { validateCheckpoint } from '../checkpoints.js';
import { mamba2Format } from './checkpoint/format.js';
import { Mamba2Config } from './config.js';
import { Mamba2Network } from './network.js';
import { OptionTable } from '../../base/options.js';
import { CONVERT_RULES, SAVE_OTHERS } from '../../checkpoints/save_options.js';

type Json = Record<string, unknown>;

/** Keys as tf.layers writes them to JSON: nGroups becomes n_groups. */
function snakeKeys(config: Json): Json {
  const snake = (key: string): string => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(Object.entries(config).map(([key, value]) => [snake(key), value]));
}

/**
 * The JSON of the causal language model as a tf.LayersModel, equal to what its save() writes. Layers describe themselves
 * without weights, so this takes no memory to speak of, whatever the model's size.
 */
export function layersModelTopology(config: Mamba2Config): Json {
  const network = new Mamba2Network(config);
  const from = (name: string, options: Json = {}): unknown => [[name, 0, 0, options]];
  const input = { batch_input_shape: [null, null], dtype: 'int32', sparse: false, name: 'input_ids' };
  const layers: Json[] = [{ name: 'input_ids', class_name: 'InputLayer', config: input, inbound_nodes: [] }];
  let before = 'input_ids';
  for (const { layer } of network.namedLayers()) {
    const nodes = [from(before)];
    layers.push({
      name: layer.name,
      class_name: layer.getClassName(),
      config: snakeKeys(layer.getConfig()),
      inbound_nodes: nodes,
    });
    before = layer.name;
  }
  let output: unknown = [before, 0, 0];
  if (!network.lm_head) {
    // the embedding layer is called a second time, in reverse, as the head
    const embeddings = layers[1] as { inbound_nodes: unknown[] };
    embeddings.inbound_nodes.push(from(before, { reverse: true }));
    output = [network.embeddings.name, 1, 0];
  }
  const model = { name: 'mamba2_causal_lm', layers, input_layers: [['input_ids', 0, 0]], output_layers: [output] };
  const version = `tfjs-layers ${tf.version_layers}`;
  const topology = { class_name: 'Model', config: model, keras_version: version, backend: 'tensor_flow.js' };
  return JSON.parse(JSON.stringify(topology)) as Json;
}

/** @throws ArgumentError when `dst` has weights that openCheckpoint and transformers would go on reading, under the new config.json */
async function refuseOtherWeights(dst: string): Promise<void> {
  const file = await findWeights(dst);
  if (file === null || path.basename(file) === 'model.json') return;
  throw new ArgumentError(
    `${dst} holds a model of another kind (${path.basename(file)}), which would be read instead of the one exported. Name another folder, or delete that model first.`,
    { option: 'dst', got: dst, file },
  );
}

const EXPORT_TABLE = new OptionTable<ConvertOptions>('exportLayersModel()', CONVERT_RULES, { others: SAVE_OTHERS });

/**
 * Writes a checkpoint as a TensorFlow.js LayersModel: model.json, weight shards, config.json and tokenizer files.
 * To load it, import this package first (its layers must be registered), then `tf.loadLayersModel('file://DIR/model.json')`
 * in Node.js, or the URL of a web server.
 * @param source an open checkpoint of any kind
 * @param dst folder to write; an earlier export in it is replaced
 * @param options as for convertCheckpoint; bfloat16 tensors take the room of float32
 * @throws CheckpointError, ConfigError, SaveError as convertCheckpoint does; ArgumentError for a folder with a model of
 *   another kind, which is left as it is
 */
export async function exportLayersModel(
  source: CheckpointSource,
  dst: string,
  options: ConvertOptions = {},
): Promise<ConvertReport> {
  EXPORT_TABLE.check(options);
  refuseOwnFolder(source, dst);
  await refuseOtherWeights(dst);
  refuseQuantized(source);
  const { dtype, ...save } = options;
  const { tied, warnings } = await validateCheckpoint(source);
  const config = convertedConfig(source, tied, dtype);
  const topology = layersModelTopology(Mamba2Config.from_dict(config));
  const tensors = convertedTensors(mamba2Format, source, tied, dtype);
  let bytes = 0;
  await saveTfjs(dst, topology, config, tensors, {
    ...save,
    extra_files: await companionFiles(source.dir),
    generatedBy: `TensorFlow.js tfjs-layers v${tf.version_layers}`,
    on_progress: (progress) => {
      bytes = progress.written;
      save.on_progress?.(progress);
    },
  });
  return { tensors: tensors.length, bytes, warnings };
}
