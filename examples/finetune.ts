/**
 * Teaches tiny-books-mamba2 to write sayings: a LoRA adapter of rank 8 on the embedding and both projections, trained on
 * quotes.jsonl. About half a minute on two CPU cores.
 *
 *     node --import tsx examples/finetune.ts
 *
 * The same from the command line:
 *
 *     npx mamba2 finetune --model models/tiny-books-mamba2 --train examples/quotes.jsonl --text-field quote \
 *       --lora 8 --target in_proj out_proj embeddings --learning-rate 2e-3 --max-length 64 --prompt "The truth is" --merge
 */
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  loadExamples,
  type PeftModel,
  SFTTrainer,
  shuffled,
  splitExamples,
} from '../src/index.js';

const dir = 'models/tiny-books-mamba2';
const model = await AutoModelForCausalLM.from_pretrained(dir);
const tokenizer = await AutoTokenizer.from_pretrained(dir);

async function sample(): Promise<string> {
  const { input_ids } = await tokenizer.batch_encode(['The truth is']);
  const [ids] = await model.generate({ input_ids, max_new_tokens: 30, do_sample: false });
  return tokenizer.decode(ids!, { skip_special_tokens: true });
}

const quotes = await loadExamples('examples/quotes.jsonl');
const { train, test } = splitExamples(quotes, 0.1, shuffled(quotes.length, 42, 0));
console.log('before:', await sample());

const trainer = new SFTTrainer({
  model,
  processing_class: tokenizer,
  peft_config: { r: 8, lora_alpha: 16, target_modules: ['embeddings', 'in_proj', 'out_proj'] },
  args: {
    output_dir: 'finetuned',
    dataset_text_field: 'quote',
    max_length: 64,
    learning_rate: 2e-3,
    num_train_epochs: 3,
    per_device_train_batch_size: 4,
    eval_strategy: 'epoch',
    save_strategy: 'epoch',
    save_total_limit: 1,
  },
  train_dataset: train,
  eval_dataset: test,
  callbacks: [
    {
      on_evaluate: (_args, state, _control, { eval_loss }) =>
        console.log(`epoch ${state.epoch}: evaluation loss ${eval_loss!.toFixed(3)}`),
    },
  ],
});
await trainer.evaluate();
await trainer.train();
console.log('after:', await sample());

const merged = (trainer.model as PeftModel).merge_and_unload();
await merged.save_pretrained('finetuned/merged'); // loads in transformers too
for (const x of [merged, trainer, model]) x.dispose();
