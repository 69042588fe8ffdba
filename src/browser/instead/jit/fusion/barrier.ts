/** XLA alone has to be told what to keep apart. */
import { needsNode } from '../../../needs_node.js';

export const materialiseOnGpu = <T>(x: T): T => x;
export const barrier = needsNode('Compiled code');
