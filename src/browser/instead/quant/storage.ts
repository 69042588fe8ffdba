/** How compiled programs keep packed matrices. */
import { needsNode } from '../../needs_node.js';

export const quantizedStorage = needsNode('Compiled code');
