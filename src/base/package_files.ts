/**
 * Files of this package beside its code: native sources, the small model. A bundler leaves the code in a file of its own, far from them; then
 * they are those of the package in node_modules near the bundle, if it is there.
 */
import * as fs from 'node:fs';
// not by its own name: bundles of ESM are usually given a line that declares `createRequire`
import * as modules from 'node:module';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';

const NAME = 'tfjs-mamba2';

const url = (import.meta as { url?: string }).url;

/** The file that this code runs from. In a bundle of CommonJS, which has no import.meta.url, a module is told its name. */
export const codeFile: string = url === undefined ? __filename : fileURLToPath(url);

/** A require() that finds packages as a file does. */
export const requireFrom = (file: string): NodeJS.Require => modules.createRequire(file);

/** Finds packages as this code's file does; bundlers do not see what is asked of it. */
export const requireNear = requireFrom(codeFile);

function isRoot(folder: string): boolean {
  try {
    const text = fs.readFileSync(path.join(folder, 'package.json'), 'utf8');
    return (JSON.parse(text) as { name?: unknown }).name === NAME;
  } catch {
    return false;
  }
}

let root: string | null | undefined;

/** The folder of this package; null in a bundle that has no package near it. */
export function packageRoot(): string | null {
  if (root !== undefined) return root;
  const own = path.resolve(path.dirname(codeFile), '..', '..');
  if (isRoot(own)) return (root = own);
  try {
    return (root = path.dirname(requireNear.resolve(`${NAME}/package.json`)));
  } catch {
    return (root = null);
  }
}

/** Whether this code is a file of the package, and not part of a bundle. */
export function isUnbundled(): boolean {
  return packageRoot() === path.resolve(path.dirname(codeFile), '..', '..');
}
