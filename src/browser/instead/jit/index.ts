/** Compiling needs TensorFlow's own runtime, and in a page nothing is traced. What is not named here is `otherwise`, too. */
import { needsNode } from '../../needs_node.js';

export { JitError, TracingError } from '../../../jit/errors.js';
export { GRAPH_BACKEND, isSymbolic, isTracing } from './trace/backend.js';

const otherwise = needsNode('Compiled code');
export const jit = otherwise;
export const matMulBf16 = needsNode('Training in bfloat16');

export class Program {
  constructor() {
    otherwise();
  }
}
