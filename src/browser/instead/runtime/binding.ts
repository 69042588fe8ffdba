/** No binding of TensorFlow: tensors are TensorFlow.js' own, and their values are there. */
import { needsNode } from '../../needs_node.js';

export const findNodeBackend = (): null => null;
export const nodeBackend = needsNode("The backend 'tensorflow'");
export const isHeld = (): boolean => true;
export const lateTensor = needsNode('A tensor that is read late');
export const nativeId = needsNode("A tensor of TensorFlow's");
