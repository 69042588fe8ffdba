/** Where a model lies: at an address, among chosen or private files, in this package, or on the hub. */
import type { HubOptions } from '../../../checkpoints/hub_options.js';
import { folderOf } from '../../files/folders.js';

export async function locateModel(name: string, options: HubOptions): Promise<string> {
  return folderOf(name, options);
}
