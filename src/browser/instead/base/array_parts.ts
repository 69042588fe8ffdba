/** Parts of arrays, for several devices: a page has one. */
import { needsNode } from '../../needs_node.js';

export const partShape = needsNode("'tp_plan'");
export const takePart = needsNode("'tp_plan'");
