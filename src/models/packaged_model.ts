/** The small model that travels in this package, so that a first program needs neither a download nor a folder of its own. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { packageRoot } from '../base/package_files.js';

/** Its name, as from_pretrained takes it. */
const PACKAGED_MODEL = 'tiny-books-mamba2';

/** Folder of the model of that name in this package; null for any other name. @throws CheckpointError in a bundle that has no package near it */
export function packagedModel(name: string): string | null {
  if (name !== PACKAGED_MODEL) return null;
  const root = packageRoot();
  if (root === null)
    throw new CheckpointError(
      `The model ${PACKAGED_MODEL} travels in the package tfjs-mamba2, and this bundle has none near it. Copy ` +
        `node_modules/tfjs-mamba2/models/${PACKAGED_MODEL} to a folder of yours and name that.`,
      { model: PACKAGED_MODEL },
    );
  const dir = path.join(root, 'models', PACKAGED_MODEL);
  return fs.existsSync(dir) ? dir : null;
}
