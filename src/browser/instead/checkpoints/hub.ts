/** Models on the hub are read where they lie, file by file: their folder is an address. */
import type { HubOptions } from '../../../checkpoints/hub_options.js';
import type { ModelFormat } from '../../../checkpoints/model_format.js';
import { folderOf } from '../../files/folders.js';

export type { ModelPart } from '../../../checkpoints/hub.js';

export async function resolveModel(_model: ModelFormat, name: string, options: HubOptions = {}): Promise<string> {
  return folderOf(name, options);
}
