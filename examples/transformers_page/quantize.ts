/** The page's example of torchao: weights alone, in 4 bits. */
import { AutoModelForCausalLM, AutoTokenizer, TorchAoConfig } from 'tfjs-mamba2';

const quantization_config = new TorchAoConfig('int4_weight_only', { group_size: 128 });
const tokenizer = await AutoTokenizer.from_pretrained('mistralai/Mamba-Codestral-7B-v0.1');
const model = await AutoModelForCausalLM.from_pretrained('mistralai/Mamba-Codestral-7B-v0.1', {
  torch_dtype: 'bfloat16',
  quantization_config,
  device_map: 'auto',
});
const encoded = await tokenizer('Plants create energy through a process known as', { return_tensors: 'tf' });
const input_ids = encoded.to('cuda');

const output = await model.generate({ ...input_ids });
console.log(await tokenizer.decode(output[0], { skip_special_tokens: true }));
