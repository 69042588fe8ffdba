/**
 * `file://` for TensorFlow.js in Node.js: `tf.loadLayersModel('file://DIR/model.json')` and `model.save('file://DIR')` without tfjs-node.
 * Importing this file registers it. Where another handler takes such an address, tfjs-node's above all, it is left to that one.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { CheckpointError, SaveError } from '../base/errors.js';
import { quote } from '../base/quote.js';
import { readBytes } from '../base/regular_file.js';
import { readTextFileIfThere } from '../base/text_files.js';
import { saveError, writeAside, writeTogether } from '../base/whole_files.js';

const SCHEME = 'file://';
/** As TensorFlow.js' converter cuts weights. */
const SHARD_BYTES = 4 * 2 ** 20;
const SHARD = /^group1-shard\d+of\d+\.bin$/;

/** What follows the scheme is a path as it is, as for tfjs-node: `file://out` is the folder `out` of the working directory. */
function pathOf(url: string): string {
  return path.resolve(url.slice(SCHEME.length).replace(/^\/(?=[A-Za-z]:[/\\])/, ''));
}

/** A folder stands for its model.json; an address made with pathToFileURL() has %20 where the path has a space. */
function modelFile(url: string): string {
  const asIs = pathOf(url);
  const decoded = /%[0-9A-Fa-f]{2}/.test(asIs) && !fs.existsSync(asIs) ? decodedPath(asIs) : asIs;
  return fs.statSync(decoded, { throwIfNoEntry: false })?.isDirectory() ? path.join(decoded, 'model.json') : decoded;
}

function decodedPath(file: string): string {
  try {
    return decodeURIComponent(file);
  } catch {
    return file;
  }
}

/** model.json. @throws CheckpointError when it is not there or is none */
async function readModel(file: string): Promise<tf.io.ModelJSON> {
  const text = await readTextFileIfThere(file, CheckpointError, 512 * 2 ** 20);
  if (text === null)
    throw new CheckpointError(
      `There is no ${file}. tf.loadLayersModel() takes the model.json that model.save() or exportLayersModel() wrote, or its folder.`,
      { file },
    );
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(`${file} is not JSON: ${(error as Error).message}.`, { file }, { cause: error });
  }
  const { modelTopology, weightsManifest } = (json ?? {}) as Partial<tf.io.ModelJSON>;
  if (typeof modelTopology !== 'object' || !isManifest(weightsManifest))
    throw new CheckpointError(`${file} is no model of TensorFlow.js: it needs modelTopology and weightsManifest.`, {
      file,
    });
  return json as tf.io.ModelJSON;
}

function isManifest(manifest: unknown): manifest is tf.io.WeightsManifestConfig {
  return (
    Array.isArray(manifest) &&
    manifest.every(
      (group: Partial<tf.io.WeightsManifestConfig[number]> | null) =>
        Array.isArray(group?.paths) &&
        group.paths.every((name) => typeof name === 'string') &&
        Array.isArray(group.weights),
    )
  );
}

/** Bytes that the manifest's weights take; null where it names a type or a shape that tells no size. */
function bytesOf(weights: readonly tf.io.WeightsManifestEntry[]): number | null {
  let sum = 0;
  for (const { shape, dtype, quantization } of weights) {
    const size = { float32: 4, int32: 4, float16: 2, uint16: 2, uint8: 1, bool: 1, complex64: 8 }[
      String(quantization?.dtype ?? dtype)
    ];
    if (size === undefined || !Array.isArray(shape)) return null;
    sum += shape.reduce((a, b) => a * b, size);
  }
  return sum;
}

async function load(file: string): Promise<tf.io.ModelArtifacts> {
  const model = await readModel(file);
  return tf.io.getModelArtifactsForJSON(model, async (manifest) => {
    const parts: Uint8Array[] = [];
    for (const { paths } of manifest)
      for (const name of paths) {
        if (name === '' || name.startsWith('.') || /[/\\\0]/.test(name))
          throw new CheckpointError(
            `${file} names the shard ${quote(name)}; a file name in the same folder was expected.`,
            { file, got: name },
          );
        parts.push(await readBytes(path.join(path.dirname(file), name), CheckpointError, Infinity));
      }
    const specs = manifest.flatMap(({ weights }) => weights);
    const [got, expected] = [parts.reduce((sum, part) => sum + part.byteLength, 0), bytesOf(specs)];
    if (expected !== null && got !== expected)
      throw new CheckpointError(`${file}: its shards have ${got} bytes; its weights take ${expected}.`, {
        file,
        got,
        expected,
      });
    // a small file is read into a pool that others share
    const own = (part: Uint8Array): Uint8Array => (part.byteLength === part.buffer.byteLength ? part : part.slice());
    return [specs, parts.map((part) => own(part).buffer as ArrayBuffer)];
  });
}

async function save(dir: string, artifacts: tf.io.ModelArtifacts): Promise<tf.io.SaveResult> {
  const { modelTopology, weightSpecs = [] } = artifacts;
  if (modelTopology === undefined || modelTopology instanceof ArrayBuffer)
    throw new SaveError(`Could not write ${dir}: only models with a topology in JSON are saved.`, { file: dir });
  const bytes = new Uint8Array(tf.io.concatenateArrayBuffers([artifacts.weightData ?? []].flat()));
  const count = Math.ceil(bytes.byteLength / SHARD_BYTES);
  const paths = Array.from({ length: count }, (_, i) => `group1-shard${i + 1}of${count}.bin`);
  try {
    await fs.promises.mkdir(dir, { recursive: true });
  } catch (error) {
    throw saveError(dir, error);
  }
  await writeTogether(async (aside) => {
    for (const [i, name] of paths.entries())
      aside.push(await writeAside(path.join(dir, name), bytes.subarray(i * SHARD_BYTES, (i + 1) * SHARD_BYTES)));
    const { format, generatedBy, convertedBy, trainingConfig, signature, userDefinedMetadata } = artifacts;
    const about = { format, generatedBy, convertedBy, trainingConfig, signature, userDefinedMetadata };
    const model = { modelTopology, ...about, weightsManifest: [{ paths, weights: weightSpecs }] };
    aside.push(await writeAside(path.join(dir, 'model.json'), JSON.stringify(model)));
  });
  for (const name of await fs.promises.readdir(dir))
    if (SHARD.test(name) && !paths.includes(name)) await fs.promises.rm(path.join(dir, name));
  return { modelArtifactsInfo: tf.io.getModelArtifactsInfoForJSON(artifacts) };
}

/** Set while other handlers are asked, so that this one does not answer for itself. */
let asking = false;

/** @param others the handlers that take this address; ours among them does not count */
function route(url: string | string[], others: (url: string) => unknown[], handler: (url: string) => tf.io.IOHandler) {
  if (asking || typeof url !== 'string' || !url.startsWith(SCHEME)) return null;
  asking = true;
  try {
    return others(url).length > 0 ? null : handler(url);
  } finally {
    asking = false;
  }
}

// tfjs' own type of a router leaves out the null that it waits for
type Router = Parameters<typeof tf.io.registerLoadRouter>[0];

tf.io.registerLoadRouter(((url: string | string[]) =>
  route(
    url,
    (each) => tf.io.getLoadHandlers(each),
    (each) => ({ load: () => load(modelFile(each)) }),
  )) as Router);
tf.io.registerSaveRouter(((url: string | string[]) =>
  route(
    url,
    (each) => tf.io.getSaveHandlers(each),
    (each) => ({ save: (artifacts) => save(pathOf(each), artifacts) }),
  )) as Router);
