/**
 * Reading golden cases: inputs.json, config.json, expected.safetensors and expected.json. They are those of
 * test/fixtures/goldens, or of another set of the same layout: GOLDENS=FOLDER. Tests take every size from these files.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { decodeFloat32, decodeInt32, isFloatDtype } from '../../src/base/stored_dtypes.js';
import { parseConfigJson, parseSafetensorsHeader, type StoredDtype } from '../../src/checkpoints/index.js';

/** A tensor of a golden file, decoded. */
export interface GoldenTensor {
  shape: number[];
  dtype: StoredDtype;
  data: Float32Array | Int32Array;
}

/** How the golden steps of training were made. */
export interface AdamWSettings {
  lr: number;
  betas: [number, number];
  eps: number;
  weight_decay: number;
  max_grad_norm: number;
  steps: number;
}

/** A golden case. */
export interface Golden {
  /** the case's folder (model.safetensors and config.json lie there) */
  dir: string;
  /** inputs.json, or {} */
  inputs: Record<string, unknown>;
  /** config.json with infinities as numbers, or {} */
  config: Record<string, unknown>;
  /** expected.json, or {} */
  json: Record<string, unknown>;
  /** tensors of expected.safetensors; empty when there is no such file */
  expected: Map<string, GoldenTensor>;
  /** an expected tensor by name; throws when there is none */
  tensor(name: string): GoldenTensor;
}

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));
const goldens = path.resolve(process.env['GOLDENS'] ?? path.join(fixtures, 'goldens'));

/** Folder of a golden case, of the set that GOLDENS names. */
export function goldenDir(name: string): string {
  return path.join(goldens, name);
}

/** A file or folder of test/fixtures, whatever GOLDENS says: for tests that need a known model, not golden values. */
export function fixture(name: string): string {
  return path.join(fixtures, name);
}

/** The folders of a case that hold a file, as adapters or models do; throws when there are none. */
export function foldersWith(golden: Golden, file: string): string[] {
  const found = fs.readdirSync(golden.dir).filter((name) => fs.existsSync(path.join(golden.dir, name, file)));
  if (found.length === 0) throw new Error(`${golden.dir} has no folder with ${file}`);
  return found.sort();
}

/** Rows [index, …] of a tensor's last axis, as one list: row(tensor, b, t) of logits [b, t, v] has v entries. */
export function vectorOf({ shape, data }: GoldenTensor, ...index: readonly number[]): Float32Array {
  if (index.length !== shape.length - 1) throw new Error(`shape [${shape}] with an index of [${index}]`);
  const size = shape[shape.length - 1]!;
  const at = index.reduce((sum, i, axis) => sum * shape[axis]! + i, 0);
  return (data as Float32Array).slice(at * size, (at + 1) * size);
}

/** All tensors of a safetensors file, decoded to float32 or int32. */
export function readTensors(file: string): Map<string, GoldenTensor> {
  const bytes = new Uint8Array(fs.readFileSync(file));
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const { entries } = parseSafetensorsHeader(bytes.subarray(8, 8 + length), 8 + length, bytes.byteLength, file);
  const out = new Map<string, GoldenTensor>();
  for (const [name, { dtype, shape, begin, end }] of entries) {
    const part = bytes.slice(begin, end);
    const data = isFloatDtype(dtype) ? decodeFloat32(part, dtype) : decodeInt32(part, dtype);
    out.set(name, { shape: [...shape], dtype, data });
  }
  return out;
}

/** Loads a case such as 'g1-forward' or 'gradients/g1'. */
export function loadGolden(name: string): Golden {
  return loadCase(goldenDir(name));
}

/** Loads a case from its folder. */
export function loadCase(dir: string): Golden {
  const json = (file: string): Record<string, unknown> => {
    const full = path.join(dir, file);
    return fs.existsSync(full) ? parseConfigJson(fs.readFileSync(full, 'utf8'), full) : {};
  };
  const tensors = path.join(dir, 'expected.safetensors');
  const expected = fs.existsSync(tensors) ? readTensors(tensors) : new Map<string, GoldenTensor>();
  return {
    dir,
    inputs: json('inputs.json'),
    config: json('config.json'),
    json: json('expected.json'),
    expected,
    tensor(tensorName) {
      const found = expected.get(tensorName);
      if (!found) throw new Error(`${tensors} has no ${tensorName}; it has ${[...expected.keys()].join(', ')}`);
      return found;
    },
  };
}
