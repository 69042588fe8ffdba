/** TrainingArguments and SFTConfig: every name of transformers and trl is honoured, or refused by name. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { ArgumentError } from '../../src/base/errors.js';
import { AutoTokenizer } from '../../src/models/auto/index.js';
import { Mamba2Config, Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { LoraConfig, PeftModel } from '../../src/peft/index.js';
import type { Tokenizer } from '../../src/tokenizers/index.js';
import {
  EarlyStoppingCallback,
  SFTConfig,
  SFTTrainer,
  type SFTTrainerOptions,
  Trainer,
  TrainingArguments,
  type TrainingOptions,
} from '../../src/training/index.js';
import { useBackend } from '../support/backends.js';
import { LEARNER } from '../support/tiny_model.js';

type Fields = Record<string, unknown>;
/** Written by scripts/fixtures/training_arguments.py. */
const fixture = JSON.parse(fs.readFileSync('test/fixtures/training_arguments.json', 'utf8')) as Record<
  'TrainingArguments' | 'SFTConfig',
  Fields
> &
  Record<'Trainer' | 'SFTTrainer', string[]>;

/** Names that earlier versions of transformers and trl had. */
const OLDER: Readonly<Record<string, RegExp>> = {
  evaluation_strategy: /It is called eval_strategy here/,
  per_gpu_train_batch_size: /It is called per_device_train_batch_size here/,
  no_cuda: /choose the device where the model is loaded/,
  fp16_opt_level: /float16 is too small/,
  half_precision_backend: /bf16: true/,
  use_mps_device: /where the model is loaded/,
  include_tokens_per_second: /always in the log/,
  push_to_hub_token: /upload the folder/,
  fsdp_min_num_params: /one device/,
  torchdynamo: /compiled by XLA/,
  dispatch_batches: /one device/,
  adafactor: /AdamW is the one optimizer/,
};

const caught = (call: () => unknown): ArgumentError => {
  try {
    call();
  } catch (error) {
    expect(error).to.be.instanceOf(ArgumentError);
    return error as ArgumentError;
  }
  throw new Error('nothing was thrown');
};
const training = (more: Fields): TrainingArguments => new TrainingArguments({ output_dir: 'out', ...more });
const sft = (more: Fields): SFTConfig => new SFTConfig({ output_dir: 'out', ...more });

describe('TrainingArguments and SFTConfig', () => {
  for (const [name, make] of [
    ['TrainingArguments', training],
    ['SFTConfig', sft],
  ] as const) {
    it(`${name}: takes the defaults of Python's, and knows all of its names`, () => {
      const entries = Object.entries(fixture[name]).filter(([key]) => key !== 'output_dir');
      expect(entries.length).to.be.greaterThan(100);
      const fields = make({}).to_dict() as unknown as Fields;
      for (const [key, value] of entries) {
        // trl's null is true where there is no fp16
        if (!(name === 'SFTConfig' && key === 'bf16')) make({ [key]: value });
        if (key in fields) continue;
        const { message, data } = caught(() => make({ [key]: { odd: 1 } }));
        expect(message, key)
          .to.match(new RegExp(`${key}`))
          .and.not.match(/Did you mean|It takes/);
        expect(message.length, key).to.be.within(40, 300);
        expect(data['option']).to.equal(key);
      }
    });
  }

  it('refuses names of earlier versions with the reason or the new name', () => {
    for (const [name, message] of Object.entries(OLDER))
      expect(caught(() => training({ [name]: 'x' })).message).to.match(message);
    expect(caught(() => sft({ max_seq_length: 5 })).message).to.match(/It is called max_length here/);
    expect(caught(() => training({ dataset_text_field: 'quote' })).message).to.match(/an option of SFTTrainer/);
    training({ fp16: false, push_to_hub: false, overwrite_output_dir: true, report_to: 'none', optim: 'adamw_torch' });
    training({ gradient_checkpointing: true, gradient_checkpointing_kwargs: { use_reentrant: false } });
  });

  it('refuses wrong values by name', () => {
    for (const [more, message] of [
      [{ fp16: true }, /fp16 is true; expected false: the range of float16 is too small/],
      [{ optim: 'adafactor' }, /optim is "adafactor"; expected 'adamw_torch'/],
      [{ report_to: 'wandb' }, /report_to is "wandb"; expected 'none', 'tensorboard'/],
      [{ lr_scheduler_type: 'cosine_with_restarts' }, /expected 'constant'/],
      [{ learning_rate: '2e-3' }, /learning_rate is "2e-3"; expected a number/],
      [{ learning_rate: NaN }, /learning_rate is NaN/],
      [{ max_steps: 0 }, /max_steps is 0; expected an integer of 1 or more, or -1/],
      [{ logging_steps: 1.5 }, /logging_steps is 1.5/],
      [{ output_dir: '' }, /output_dir is ""; expected a folder/],
      [{ seed: 1.5 }, /seed is 1.5/],
      [{ gradient_checkpointing_kwargs: { use_reentrent: false } }, /expected \{ use_reentrant/],
    ] as const)
      expect(caught(() => training(more)).message).to.match(message);
    expect(caught(() => sft({ max_length: 1 })).message).to.match(
      /max_length is 1; expected an integer of 2 or more, or null/,
    );
    expect(caught(() => new TrainingArguments({} as TrainingOptions)).message).to.match(/needs output_dir/);
    expect(caught(() => new TrainingArguments('out' as never)).message).to.match(/expected an object/);
    expect(caught(() => new TrainingArguments(undefined as never)).message).to.match(/expected an object/);
  });

  it('refuses options without effect beside others', () => {
    for (const more of [
      { eval_steps: 10 },
      { eval_delay: 1 },
      { save_strategy: 'epoch', save_steps: 10 },
      { logging_strategy: 'epoch', logging_steps: 5 },
      { logging_strategy: 'no', logging_first_step: true },
      { warmup_steps: 10, warmup_ratio: 0.1 },
      { lr_scheduler_type: 'constant', warmup_ratio: 0.1 },
    ])
      expect(caught(() => training(more)).message, JSON.stringify(more)).to.match(/which has no effect/);
    expect(caught(() => sft({ packing: true, max_length: null })).message).to.match(/packing needs a length/);
  });

  it('are plain fields, which may be changed, spread and written as JSON', () => {
    const args = new TrainingArguments({ output_dir: 'out', learning_rate: 2e-3, logging_dir: './logs' });
    expect(args.per_device_train_batch_size).to.equal(8);
    expect(JSON.parse(args.to_json_string())).to.deep.equal(args.to_dict());
    expect(new TrainingArguments({ ...args, seed: 7 }).to_dict()).to.deep.equal({ ...args.to_dict(), seed: 7 });
    // trl's own default, and what TrainingArguments say
    expect(sft({}).learning_rate).to.equal(2e-5);
    expect(sft({}).dataset_text_field).to.equal('text');
    expect(new SFTConfig(args).learning_rate).to.equal(2e-3);
    expect(sft({})).to.be.instanceOf(TrainingArguments);
  });

  it('early stopping takes the options of transformers', () => {
    new EarlyStoppingCallback({ early_stopping_patience: 3, early_stopping_threshold: 0.1 });
    expect(caught(() => new EarlyStoppingCallback({ patience: 3 } as never)).message).to.match(
      /It is called early_stopping_patience here/,
    );
    expect(caught(() => new EarlyStoppingCallback(0)).message).to.match(/early_stopping_patience is 0/);
  });
});

describe('options of trainers', () => {
  let tokenizer: Tokenizer;
  let model: Mamba2ForCausalLM;
  let dir: string;
  before(async () => {
    await useBackend('tensorflow');
    tokenizer = await AutoTokenizer.from_pretrained('models/tiny-books-mamba2');
    model = new Mamba2ForCausalLM(new Mamba2Config({ ...LEARNER, vocab_size: 4096 }));
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'args-'));
  });
  after(() => {
    model.dispose();
    fs.rmSync(dir, { recursive: true, force: true });
  });
  const quotes = [{ quote: 'Brevity is the soul of wit.' }, { quote: 'To be, or not to be.' }];

  it("knows all names of transformers' and trl's constructors", () => {
    for (const name of fixture.Trainer)
      expect(caught(() => new Trainer({ [name]: 3 } as never)).message, name).not.to.match(/Did you mean|It takes/);
    for (const name of fixture.SFTTrainer)
      expect(caught(() => new SFTTrainer({ [name]: 3 } as never)).message, name).not.to.match(/Did you mean|It takes/);
  });

  it('refuses misspelt names and wrong values before anything else', () => {
    const base = { model, tokenizer, args: { output_dir: dir }, train_dataset: quotes };
    for (const [more, message] of [
      [{ peft_confg: { r: 8 } }, /no option peft_confg\. Did you mean peft_config\?/],
      [{ max_seq_length: 9 }, /it is called max_length here, and is an option of args/],
      [{ model: 'mistralai/Mamba-Codestral-7B-v0.1' }, /expected a model \(from_pretrained\(\)\)/],
      [{ model: undefined }, /needs model/],
      [{ args: undefined }, /needs args/],
      [{ tokenizer: undefined }, /needs processing_class \(or tokenizer\)/],
      [{ tokenizer: 'gpt2' }, /expected a tokenizer/],
      [{ processing_class: { encode: () => [], decode: () => '' } }, /one option by two names/],
      [{ train_dataset: 'quotes.jsonl' }, /train_dataset is "quotes.jsonl"; expected a list of examples/],
      [{ callbacks: [{ on_stepend: () => 0 }] }, /callbacks/],
      [{ dataset_text_field: 'quote', args: { output_dir: dir, dataset_text_field: 'x' } }, /pass it once/],
      [
        { args: { output_dir: dir, learning_rat: 1 } },
        /SFTConfig has no option learning_rat\. Did you mean learning_rate/,
      ],
      [{ optimizers: [1, 2] }, /AdamW is the optimizer/],
    ] as const)
      expect(caught(() => new SFTTrainer({ ...base, ...more } as never)).message).to.match(message);
    const ids = { model, args: { output_dir: dir }, train_dataset: [{ input_ids: [1, 2] }] };
    for (const [more, message] of [
      [{ peft_config: { r: 8 } }, /an option of SFTTrainer/],
      [{ args: sft({}) }, /is an option of SFTTrainer|stands beside args/],
      [{ dataset_text_field: 'quote' }, /SFTTrainer takes texts/],
    ] as const)
      expect(caught(() => new Trainer({ ...ids, ...more })).message).to.match(message);
    const changed = training({});
    Object.assign(changed, { learning_rate: 'x' });
    expect(caught(() => new Trainer({ ...ids, args: changed })).message).to.match(/learning_rate is "x"/);
  });

  it('train() refuses what it does not take', async () => {
    const trainer = new Trainer({ model, args: { output_dir: dir }, train_dataset: [{ input_ids: [1, 2] }] });
    const message = await trainer.train({ resume: true } as never).catch((error: Error) => error.message);
    expect(message).to.match(/It is called resume_from_checkpoint here/);
    trainer.dispose();
  });

  it("runs the page's fine-tuning, line by line", async () => {
    tokenizer.padding_side = 'left';
    const out = path.join(dir, 'results');
    const logs = path.join(dir, 'logs');
    const training_args = new TrainingArguments({
      output_dir: out,
      num_train_epochs: 3,
      per_device_train_batch_size: 2,
      logging_dir: logs,
      logging_steps: 1,
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
      train_dataset: quotes,
      dataset_text_field: 'quote',
    });
    const { global_step } = await trainer.train();
    expect(global_step).to.equal(3);
    expect(trainer.args.learning_rate).to.equal(2e-3);
    expect(trainer.model).to.be.instanceOf(PeftModel);
    expect(fs.readFileSync(path.join(logs, 'log.jsonl'), 'utf8').trim().split('\n')).to.have.length(3);
    expect(fs.existsSync(path.join(logs, 'loss.svg'))).to.equal(true);
    expect(fs.readdirSync(out)).to.deep.equal(['checkpoint-3']);
    (trainer.model as PeftModel).dispose();
    trainer.dispose();
  });

  it('makes texts with formatting_func, and logs, evaluates and delays as asked', async () => {
    const args: SFTTrainerOptions['args'] = {
      output_dir: path.join(dir, 'formatted'),
      engine: 'eager',
      max_steps: 4,
      per_device_train_batch_size: 1,
      learning_rate: 1e-3,
      logging_steps: 0.5,
      logging_first_step: true,
      eval_strategy: 'steps',
      eval_steps: 1,
      eval_delay: 3,
      eval_on_start: true,
      save_strategy: 'no',
    };
    const formatting_func = ({ quote }: Readonly<Fields>): string => `“${quote as string}”`;
    const trainer = new SFTTrainer({
      model,
      tokenizer,
      args,
      train_dataset: quotes,
      eval_dataset: quotes,
      formatting_func,
    });
    await trainer.train();
    const history = trainer.state.log_history;
    expect(history.filter((e) => 'loss' in e).map(({ step }) => step)).to.deep.equal([1, 2, 4]);
    expect(history.filter((e) => 'eval_loss' in e).map(({ step }) => step)).to.deep.equal([0, 3, 4]);
    trainer.dispose();
  });
});
