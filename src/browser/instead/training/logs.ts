/** Logs of a run. Files that grow line by line are not among a page's: a run's log is in the trainer's state, and told to its callbacks. */
import { needsNode } from '../../needs_node.js';

export class TensorBoardLog {
  constructor() {
    needsNode('TensorBoardLog')();
  }
}

export class RunLogs {
  static async open(): Promise<RunLogs> {
    return new RunLogs();
  }
  append(): void {
    // nowhere
  }
}

export async function writeCurve(): Promise<void> {
  // nowhere
}
