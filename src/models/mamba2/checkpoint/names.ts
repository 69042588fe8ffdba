/**
 * Tensor names of the known containers to those of Hugging Face's Mamba-2:
 * - mamba_ssm writes `backbone.embedding.weight`, Hugging Face `backbone.embeddings.weight`;
 * - Mistral's native Codestral puts `model.` before mamba_ssm's names;
 * - training tools leave their wrapper's prefix (`module.` of DistributedDataParallel, `_orig_mod.` of torch.compile);
 * - a bare backbone (Mamba2Model.save_pretrained) has no `backbone.`.
 */

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
 * The shape of a tensor as Hugging Face has it. MLX keeps the convolution as [channels, kernel, 1]; the bytes are the same
 * as [channels, 1, kernel], so only the shape is rewritten.
 * @param name Hugging Face's
 */
export function huggingFaceShape(name: string, shape: readonly number[]): readonly number[] {
  const [channels, middle, last] = shape as [number, number, number];
  const mlx = name.endsWith('.conv1d.weight') && shape.length === 3 && last === 1 && middle > 1;
  return mlx ? [channels, 1, middle] : shape;
}

/** Parameters that keep at least their stored precision: the recurrence multiplies their errors along the sequence. */
const PRECISE = /\.mixer\.(A_log|D|dt_bias)$/;

/** Whether a tensor is never narrowed when a checkpoint is converted. */
export function keepsPrecision(name: string): boolean {
  return PRECISE.test(name);
}
