/** The engine over a compiled program. Models ask for it on the backend 'tensorflow' alone. */
import { needsNode } from '../../../needs_node.js';

export class CompiledEngine {
  constructor() {
    needsNode("engine 'compiled'")();
  }
  dispose(): void {
    // never made
  }
}
