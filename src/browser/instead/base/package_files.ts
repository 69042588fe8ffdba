/** The package's files are beside the code, at an address. */
import { needsNode } from '../../needs_node.js';

export const codeFile = import.meta.url;
export const packageRoot = (): null => null;
export const isUnbundled = (): boolean => false;
export const requireNear = needsNode('A package with native code');
