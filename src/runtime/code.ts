/** A digest of the code that models are traced by. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { codeFile, isUnbundled } from '../base/package_files.js';
import { packageVersion } from './version.js';

/** Rooms whose code decides what a traced model looks like. */
const TRACED_ROOMS = ['runtime', 'jit', 'kernels', 'layers', 'engine', 'models', 'quant'];
let digest: string | null = null;

/** The code's digest, in the files that scripts/build_node.mjs makes. */
declare const BUILT_CODE: string | undefined;

/** A digest of this package's code and of the tfjs version: what was derived from the code of another must not be reused. */
export function codeDigest(): string {
  if (digest !== null) return digest;
  const hash = createHash('sha1').update(tf.version['tfjs-core']); // decompositions of tfjs are part of what is traced
  if (typeof BUILT_CODE !== 'undefined') return (digest = hash.update(BUILT_CODE).digest('hex'));
  // a bundle may have the rooms in several files: it is of one version of the package
  if (!isUnbundled()) return (digest = hash.update(packageVersion()).update(fs.readFileSync(codeFile)).digest('hex'));
  const root = path.resolve(path.dirname(codeFile), '..');
  for (const room of TRACED_ROOMS) {
    const files = fs.readdirSync(path.join(root, room), { recursive: true, encoding: 'utf8' });
    for (const file of files.filter((name) => /\.[jt]s$/.test(name) && !name.endsWith('.d.ts')).sort()) {
      hash.update(file).update(fs.readFileSync(path.join(root, room, file)));
    }
  }
  return (digest = hash.digest('hex'));
}
