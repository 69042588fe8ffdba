/** Rows of CSV files, whose parser reads streams of Node.js. */
import { needsNode } from '../../../needs_node.js';

export const readCsv = needsNode('A file of CSV');
