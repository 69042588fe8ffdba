/** Training over several devices: createStep() makes it on the backend 'tensorflow' alone. */
import { needsNode } from '../../../needs_node.js';

export const replicated = (options: { workers?: unknown; data_parallel?: unknown }): boolean =>
  Boolean(options.workers) || Number(options.data_parallel ?? 1) > 1;

export class ReplicatedStep {
  constructor() {
    needsNode("'workers' and 'data_parallel'")();
  }
}
