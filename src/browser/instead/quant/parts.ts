/** Parts of quantised matrices, for several devices: a page has one. */
import { needsNode } from '../../needs_node.js';

export const partOfMatrix = needsNode("'tp_plan'");
