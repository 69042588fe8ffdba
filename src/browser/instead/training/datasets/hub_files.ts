/** Data sets of the hub. */
import { needsNodeLater } from '../../../needs_node.js';

export const CONVERTED = 'refs/convert/parquet';

export class HubFiles {
  static open = needsNodeLater('A data set of the hub');
}
