/** A model in parts on several devices: a page has one. */
import { needsNode } from '../../../needs_node.js';

export const tensorParallel = needsNode("'tp_plan'");
