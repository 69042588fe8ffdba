/** The small model that travels in this package, so that a first program needs neither a download nor a folder of its own. */
import * as fs from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Its name, as from_pretrained takes it. */
const PACKAGED_MODEL = 'tiny-books-mamba2';

/** Folder of the model of that name in this package; null for any other name. */
export function packagedModel(name: string): string | null {
  if (name !== PACKAGED_MODEL) return null;
  const dir = fileURLToPath(new URL(`../../models/${PACKAGED_MODEL}`, import.meta.url));
  return fs.existsSync(dir) ? dir : null;
}
