/**
 * Tensor names of the known containers to those of Hugging Face's Mamba-2:
 * - mamba_ssm writes `backbone.embedding.weight`, Hugging Face `backbone.embeddings.weight`;
 * - Mistral's native Codestral puts `model.` before mamba_ssm's names;
 * - training tools leave their wrapper's prefix (`module.` of DistributedDataParallel, `_orig_mod.` of torch.compile);
 * - a bare backbone (Mamba2Model.save_pretrained) has no `backbone.`.
 */
import { CheckpointError } from '../base/errors.js';
import type { Container, ContainerTensor } from './container.js';

const WRAPPERS = ['module.', '_orig_mod.', 'model.'];

/** One name, wrappers' prefixes removed and the embedding spelt as Hugging Face does. */
export function huggingFaceName(name: string): string {
  let bare = name;
  for (let again = true; again;) {
    again = false;
    for (const prefix of WRAPPERS)
      if (bare.startsWith(prefix)) {
        bare = bare.slice(prefix.length);
        again = true;
      }
  }
  if (/^(layers\.\d+\.|embeddings?\.|norm_f\.)/.test(bare)) bare = `backbone.${bare}`;
  return bare.replace(/^backbone\.embedding\./, 'backbone.embeddings.');
}

/**
 * A container's tensors under Hugging Face's names.
 * MLX keeps the convolution as [channels, kernel, 1]; the bytes are the same as [channels, 1, kernel], so only the shape
 * is rewritten.
 * @throws CheckpointError when two tensors end up with one name
 */
export function withHuggingFaceNames(container: Container): Map<string, ContainerTensor> {
  const out = new Map<string, ContainerTensor>();
  const origin = new Map<string, string>();
  for (const [name, tensor] of container.tensors) {
    const target = huggingFaceName(name);
    if (out.has(target))
      throw new CheckpointError(
        `${tensor.file}: tensors ${origin.get(target)} and ${name} are both ${target} in Hugging Face's naming.`,
        { file: tensor.file, tensor: name },
      );
    origin.set(target, name);
    const [channels, middle, last] = tensor.shape as [number, number, number];
    const mlx = target.endsWith('.conv1d.weight') && tensor.shape.length === 3 && last === 1 && middle > 1;
    out.set(target, mlx ? { ...tensor, shape: [channels, 1, middle] } : tensor);
  }
  return out;
}
