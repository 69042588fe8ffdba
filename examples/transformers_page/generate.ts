/** The page's second example: the model and its tokenizer. */
import { AutoModelForCausalLM, AutoTokenizer } from 'tfjs-mamba2';

const tokenizer = await AutoTokenizer.from_pretrained('mistralai/Mamba-Codestral-7B-v0.1');
const model = await AutoModelForCausalLM.from_pretrained('mistralai/Mamba-Codestral-7B-v0.1', {
  torch_dtype: 'bfloat16',
  device_map: 'auto',
});
const encoded = await tokenizer('Plants create energy through a process known as', { return_tensors: 'tf' });
const input_ids = encoded.to('cuda');

const output = await model.generate({ ...input_ids });
console.log(await tokenizer.decode(output[0], { skip_special_tokens: true }));
