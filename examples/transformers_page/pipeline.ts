/** The page's first example: generate text with a pipeline. */
import { pipeline } from 'tfjs-mamba2';

const generator = await pipeline('text-generation', 'mistralai/Mamba-Codestral-7B-v0.1', {
  torch_dtype: 'bfloat16',
  device: 0,
});
console.log(await generator('Plants create energy through a process known as'));
