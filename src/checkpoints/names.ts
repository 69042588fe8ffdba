/** A container's tensors under Hugging Face's names. */
import { CheckpointError } from '../base/errors.js';
import type { Container, ContainerTensor } from './container.js';
import type { ModelFormat } from './model_format.js';
import { plain } from '../base/quote.js';

/**
 * A container's tensors under Hugging Face's names, in the shapes that go with them; the bytes stay as they are.
 * @throws CheckpointError when two tensors end up with one name
 */
export function withHuggingFaceNames(
  model: Pick<ModelFormat, 'tensorName' | 'tensorShape'>,
  container: Container,
): Map<string, ContainerTensor> {
  const out = new Map<string, ContainerTensor>();
  const origin = new Map<string, string>();
  for (const [name, tensor] of container.tensors) {
    const target = model.tensorName(name);
    if (out.has(target))
      throw new CheckpointError(
        `${tensor.file}: tensors ${plain(origin.get(target)!)} and ${plain(name)} are both ${plain(target)} in Hugging Face's naming.`,
        { file: tensor.file, tensor: name },
      );
    origin.set(target, name);
    const shape = model.tensorShape(target, tensor.shape);
    out.set(target, shape === tensor.shape ? tensor : { ...tensor, shape });
  }
  return out;
}
