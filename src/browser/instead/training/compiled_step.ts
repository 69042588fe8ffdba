/** The compiled training step: createStep() makes it on the backend 'tensorflow' alone. */
import { needsNode } from '../../needs_node.js';

export class CompiledStep {
  constructor() {
    needsNode("engine 'compiled'")();
  }
}
