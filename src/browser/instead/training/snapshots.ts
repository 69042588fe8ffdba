/** Snapshots of a run are folders that change their names, which a page's private files cannot. A model or an adapter can be saved. */
import { needsNodeLater } from '../../needs_node.js';

export const listCheckpoints = (): readonly { dir: string; step: number }[] => [];
export const removeUnfinished = async (): Promise<void> => undefined;

export const saveSnapshot = needsNodeLater("A snapshot of a run (save_strategy other than 'no')");
export const loadSnapshot = needsNodeLater('Going on from a snapshot');
