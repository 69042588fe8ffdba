/** The page's example of fine-tuning with PEFT and trl. */
import { AutoTokenizer, load_dataset, LoraConfig, Mamba2ForCausalLM, SFTTrainer, TrainingArguments } from 'tfjs-mamba2';

const model_id = 'mistralai/Mamba-Codestral-7B-v0.1';
const tokenizer = await AutoTokenizer.from_pretrained(model_id, {
  revision: 'refs/pr/9',
  from_slow: true,
  legacy: false,
});
tokenizer.pad_token = tokenizer.eos_token;
tokenizer.padding_side = 'left'; // enforce padding side left

const model = await Mamba2ForCausalLM.from_pretrained(model_id, { revision: 'refs/pr/9' });
const dataset = await load_dataset('Abirate/english_quotes', { split: 'train' });

const training_args = new TrainingArguments({
  output_dir: './results',
  num_train_epochs: 3,
  per_device_train_batch_size: 2,
  logging_dir: './logs',
  logging_steps: 10,
  learning_rate: 2e-3,
});
const lora_config = new LoraConfig({
  r: 8,
  target_modules: ['embeddings', 'in_proj', 'out_proj'],
  task_type: 'CAUSAL_LM',
  bias: 'none',
});
const trainer = new SFTTrainer({
  model,
  tokenizer,
  args: training_args,
  peft_config: lora_config,
  train_dataset: dataset,
  dataset_text_field: 'quote',
});
await trainer.train();
