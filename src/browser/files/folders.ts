/** The folder that a model's name stands for. */
import { CheckpointError } from '../../base/errors.js';
import { plain } from '../../base/quote.js';
import { throwIfStopped } from '../../base/regular_file.js';
import type { HubOptions } from '../../checkpoints/hub_options.js';
import { addressOf, baseAddress, browserSettings } from '../settings.js';
import { forgetFailures } from './asked.js';
import { beginDownload } from './downloads.js';
import { OPFS } from './opfs.js';
import { isPicked } from './picked.js';

const HUB = 'https://huggingface.co';
const PACKAGED = 'tiny-books-mamba2';
/** As the hub names repositories; what begins with a point or a slash is an address. */
const REPOSITORY = /^[A-Za-z0-9][\w.-]*\/[\w.-]+$/;

function addressOfName(name: string, { revision = 'main', endpoint }: HubOptions): string {
  if (name === PACKAGED) {
    const { packaged_models } = browserSettings();
    const all =
      packaged_models === undefined ? new URL('../../models/', import.meta.url).href : addressOf(packaged_models);
    return `${all}${PACKAGED}/`;
  }
  if (!REPOSITORY.test(name)) return new URL(name.endsWith('/') ? name : `${name}/`, baseAddress()).href;
  const hub = (endpoint ?? browserSettings().hub ?? HUB).replace(/\/+$/, '');
  return `${new URL(hub, baseAddress()).href.replace(/\/+$/, '')}/${name}/resolve/${encodeURIComponent(revision)}/`;
}

/**
 * The folder of a model: `opfs:/…`, a folder of chosen files, or an address (`https://…`, `/models/x`, `./x`); `org/name` is on the hub, and
 * `tiny-books-mamba2` in this package. Files below it are fetched with the options' token and signal, and told of to their callbacks.
 */
export function folderOf(name: string, options: HubOptions = {}): string {
  throwIfStopped(options.signal);
  if (OPFS.test(name) || isPicked(name)) return name;
  let folder: string;
  try {
    folder = addressOfName(name, options);
  } catch (cause) {
    throw new CheckpointError(`${plain(name)} is neither the name of a model on the hub nor an address.`, { file: name }, { cause }); // prettier-ignore
  }
  if (options.cache_dir !== undefined)
    throw new CheckpointError(
      'cache_dir has no effect in a page: configureBrowser({ cache }) names where bytes are kept.',
      {},
    );
  forgetFailures(folder);
  beginDownload(folder, { ...options, name });
  return folder;
}
