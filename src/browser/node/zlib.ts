/** What of node:zlib is used; a page has no inflating that answers at once. */
import { needsNode } from '../needs_node.js';

export const inflateRawSync = needsNode('Reading a compressed archive');
export const gunzipSync = needsNode('Reading a compressed file');
export const crc32 = needsNode('Reading an archive');
