/** The program of the compiled engine. */
import { needsNode } from '../../../needs_node.js';

export const buildDecodingProgram = needsNode('buildDecodingProgram()');
