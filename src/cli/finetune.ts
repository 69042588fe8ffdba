/** `mamba2 finetune`: trains a model, or an adapter on it, on a file of texts. */
import * as path from 'node:path';
import { Option, type Command } from 'commander';
import { ArgumentError } from '../base/errors.js';
import { computeDtypeOf } from '../base/compute_dtypes.js';
import { omit } from '../base/omit.js';
import {
  addModelOptions,
  hubOptions,
  keepCompiledPrograms,
  loadingOptions,
  loadTokenizer,
  numberIn,
  type ModelOptions,
} from './options.js';
import { note, table, write } from './output.js';
import type { Example } from '../training/data/readers.js';

interface Options extends ModelOptions {
  train: string;
  eval?: string;
  evalShare: number;
  output: string;
  textField?: string;
  sampleBy: 'line' | 'paragraph' | 'document';
  lora?: number | true;
  loraAlpha?: number;
  loraDropout: number;
  target: string[];
  epochs: number;
  maxSteps?: number;
  learningRate?: number;
  scheduler: 'constant' | 'constant_with_warmup' | 'linear' | 'cosine';
  warmupRatio: number;
  batchSize: number;
  accumulate: number;
  maxLength: number;
  weightDecay: number;
  packing?: boolean;
  bf16?: boolean;
  gradientCheckpointing?: boolean;
  saveSteps?: number;
  resume?: boolean;
  seed: number;
  prompt?: string;
  merge?: boolean;
  tensorboard?: boolean;
  json?: boolean;
  workers?: string[];
  dataParallel?: 'auto' | number;
}

const whole = { min: 1, whole: true };

export function registerFinetune(program: Command): void {
  const command = program.command('finetune').description('train a model, or a LoRA adapter on it, on a file of texts');
  addModelOptions(command);
  command
    .requiredOption('--train <file>', 'examples: .jsonl, .json, .csv, .txt or .parquet')
    .option('--eval <file>', 'examples for evaluation (default: a share of --train)')
    .option('--eval-share <share>', 'share of --train kept for evaluation', numberIn({ min: 0, max: 0.9 }), 0.1)
    .option('--output <dir>', 'folder for checkpoints, logs and the result', 'finetuned')
    .option('--text-field <name>', 'key of the text in an example (default: text, or the only one there is)')
    .addOption(
      new Option('--sample-by <unit>', 'what is an example of a .txt file')
        .choices(['line', 'paragraph', 'document'])
        .default('line'),
    )
    .option('--lora [rank]', 'train an adapter of this rank (default 8) and leave the model as it is', numberIn(whole))
    .option('--lora-alpha <alpha>', 'scale of the adapter (default: twice the rank)', numberIn({ above: 0 }))
    .option('--lora-dropout <share>', 'share of adapter inputs dropped in training', numberIn({ min: 0, max: 0.99 }), 0)
    .option('--target <modules...>', 'modules under the adapter', ['in_proj'])
    .option('--epochs <n>', 'passes over the data', numberIn({ above: 0 }), 3)
    .option('--max-steps <n>', 'at most so many updates', numberIn(whole))
    .option('--learning-rate <rate>', 'default 2e-3 with --lora, else 1e-4', numberIn({ above: 0 }))
    .addOption(
      new Option('--scheduler <name>', 'course of the learning rate')
        .choices(['constant', 'constant_with_warmup', 'linear', 'cosine'])
        .default('linear'),
    )
    .option('--warmup-ratio <share>', 'share of the steps in which the rate rises', numberIn({ min: 0, max: 1 }), 0)
    .option('--batch-size <n>', 'examples at a time', numberIn(whole), 4)
    .option('--accumulate <n>', 'batches of one update', numberIn(whole), 1)
    .option('--max-length <n>', 'tokens of an example, at most', numberIn({ min: 2, whole: true }), 256)
    .option('--weight-decay <decay>', 'of matrices', numberIn({ min: 0 }), 0)
    .option('--packing', 'pack whole examples into rows of --max-length')
    .option('--bf16', 'products in bfloat16')
    .option('--gradient-checkpointing', 'less memory, more work')
    .option('--save-steps <n>', 'a snapshot every so many updates (default: every epoch)', numberIn(whole))
    .option('--resume', 'go on from the last snapshot in --output')
    .option(
      '--seed <n>',
      'of order, dropout and the fresh adapter',
      numberIn({ min: 0, max: 2 ** 31 - 1, whole: true }),
      42,
    )
    .option('--prompt <text>', 'continue this text before and after training')
    .option('--merge', 'with --lora: also write the model with the adapter merged in, to OUTPUT/merged')
    .option('--tensorboard', 'write event files for TensorBoard, to OUTPUT/runs')
    .option(
      '--data-parallel <n>',
      'replicas on the GPUs of this machine, which share each batch; or auto',
      replicasFrom,
    )
    .option('--workers <addresses>', 'replicas on workers (mamba2 worker): HOST:PORT,HOST:PORT', workersFrom)
    .option('--json', 'print the result as one line of JSON')
    .action(finetune);
}

function workersFrom(text: string, before: string[] = []): string[] {
  return [...before, ...text.split(',').map((each) => each.trim())].filter((each) => each !== '');
}

function replicasFrom(text: string): 'auto' | number {
  return text === 'auto' ? text : numberIn(whole)(text);
}

/** The key of the text: the one asked for, 'text', or the only one that can be meant. */
function fieldOf(example: Readonly<Record<string, unknown>>, asked: string | undefined): string {
  if (asked !== undefined) return asked;
  if (
    'text' in example ||
    ('prompt' in example && 'completion' in example) ||
    'messages' in example ||
    'input_ids' in example
  )
    return 'text';
  const texts = Object.keys(example).filter((key) => typeof example[key] === 'string');
  if (texts.length === 1) return texts[0]!;
  throw new ArgumentError(`The examples have no 'text'; say which of ${texts.join(', ')} with --text-field.`, {
    keys: texts,
  });
}

/** Training holds its weights in float32. @throws ArgumentError for another type */
function refuseTypes({ dtype, torchDtype, stateDtype, products }: Options): void {
  const narrow = [
    ['--dtype', dtype],
    ['--torch-dtype', torchDtype],
    ['--state-dtype', stateDtype],
    ['--products', products],
  ].find(([, value]) => value !== undefined && !['auto', 'float32'].includes(computeDtypeOf(value) ?? ''));
  if (narrow)
    throw new ArgumentError(
      `${narrow[0]} ${narrow[1]}: weights and states are float32 in training. --bf16 computes products in bfloat16.`,
      { got: narrow[1] },
    );
}

/** The tokenizer's files, so that the result is a model folder of its own. */
async function tokenizerFiles(options: Options): Promise<Record<string, Uint8Array>> {
  const { companionFiles } = await import('../checkpoints/index.js');
  const { locateModel } = await import('../models/locate.js');
  const { tokenizer, model } = options;
  const hub = hubOptions(options);
  const dir = await locateModel(tokenizer ?? model, tokenizer === undefined ? hub : omit(hub, 'revision'), 'tokenizer');
  const files = Object.entries(await companionFiles(dir));
  return Object.fromEntries(files.filter(([file]) => file !== 'generation_config.json'));
}

/** What a run is told by, on a terminal or as JSON. */
interface Finetuned {
  output_dir: string;
  global_step: number;
  stopped_by: string | null;
  training_loss: number;
  eval_loss_before?: number;
  eval_loss_after?: number;
  seconds: number;
  tokens_per_second: number;
  text_before?: string;
  text_after?: string;
  /** folders of what was made */
  adapter?: string;
  model?: string;
  merged?: string;
}

function rowsOf(made: Finetuned): [string, string][] {
  const { global_step, stopped_by, training_loss, eval_loss_before: first, eval_loss_after: last } = made;
  const rows: [string, string | undefined][] = [
    ['updates', `${global_step}${stopped_by ? ` (stopped by ${stopped_by})` : ''}`],
    ['training loss', training_loss.toFixed(4)],
    ['evaluation loss', first === undefined ? undefined : `${first.toFixed(4)} before, ${last!.toFixed(4)} after`],
    ['time', `${made.seconds.toFixed(1)} s, ${Math.round(made.tokens_per_second)} tokens per second`],
    ['before', made.text_before === undefined ? undefined : JSON.stringify(made.text_before)],
    ['after', made.text_after === undefined ? undefined : JSON.stringify(made.text_after)],
    ['model', made.model],
    ['adapter', made.adapter],
    ['merged model', made.merged],
  ];
  return rows.filter((row): row is [string, string] => row[1] !== undefined);
}

async function finetune(options: Options): Promise<void> {
  refuseTypes(options);
  const [{ loadExamples }, { aloneIn }] = await Promise.all([
    import('../training/index.js'),
    import('../training/output_lock.js'),
  ]);
  const examples = await loadExamples(options.train, { sample_by: options.sampleBy });
  if (examples.length === 0) throw new ArgumentError(`${options.train} has no examples`, { file: options.train });
  // held from before the model is loaded until the result is written: a second run is told at once
  const made = await aloneIn(options.output, () => run(options, examples));
  await write(options.json ? `${JSON.stringify(made)}\n` : table(rowsOf(made)));
}

async function run(options: Options, examples: Example[]): Promise<Finetuned> {
  const [{ AutoModelForCausalLM }, training, { PeftModel, save_adapter }] = await Promise.all([
    import('../models/auto/index.js'),
    import('../training/index.js'),
    import('../peft/index.js'),
  ]);
  const onWarning = (message: string): void => note(`Warning: ${message}`);
  const field = fieldOf(examples[0]!, options.textField);
  let [train, test] = [examples, [] as typeof examples];
  if (options.eval) test = await training.loadExamples(options.eval, { sample_by: options.sampleBy });
  else if (options.evalShare > 0 && examples.length > 1) {
    ({ train, test } = training.splitExamples(
      examples,
      options.evalShare,
      training.shuffled(examples.length, options.seed, 0),
    ));
  }
  await keepCompiledPrograms();
  // what a step computes in between is large, and would come in regions that double
  process.env['TF_GPU_ALLOCATOR'] ??= 'cuda_malloc_async';
  const tokenizer = await loadTokenizer(options);
  const model = await AutoModelForCausalLM.from_pretrained(options.model, {
    ...loadingOptions(options),
    engine: 'eager',
    on_warning: onWarning,
  });
  const rank = options.lora === true ? 8 : options.lora;
  const trainer = new training.SFTTrainer({
    model,
    processing_class: tokenizer,
    peft_config:
      rank === undefined
        ? undefined
        : {
            r: rank,
            lora_alpha: options.loraAlpha ?? 2 * rank,
            lora_dropout: options.loraDropout,
            target_modules: options.target,
            base_model_name_or_path: options.model,
          },
    args: {
      output_dir: options.output,
      dataset_text_field: field,
      max_length: options.maxLength,
      packing: options.packing,
      learning_rate: options.learningRate ?? (rank === undefined ? 1e-4 : 2e-3),
      lr_scheduler_type: options.scheduler,
      warmup_ratio: options.warmupRatio,
      weight_decay: options.weightDecay,
      num_train_epochs: options.epochs,
      max_steps: options.maxSteps ?? -1,
      per_device_train_batch_size: options.batchSize,
      per_device_eval_batch_size: options.batchSize,
      gradient_accumulation_steps: options.accumulate,
      gradient_checkpointing: options.gradientCheckpointing ?? false,
      eval_strategy: test.length > 0 ? 'epoch' : 'no',
      save_strategy: options.saveSteps ? 'steps' : 'epoch',
      save_steps: options.saveSteps,
      save_total_limit: 2,
      logging_steps: 5,
      bf16: options.bf16 ?? false,
      engine: options.engine ?? 'auto',
      workers: options.workers ?? null,
      data_parallel: options.dataParallel ?? null,
      seed: options.seed,
      report_to: options.tensorboard ? ['tensorboard'] : [],
    },
    train_dataset: train,
    eval_dataset: test,
    on_warning: onWarning,
  });
  try {
    const sample = async (): Promise<string> => {
      const { input_ids } = await tokenizer.batch_encode([options.prompt!]);
      const [ids] = await model.generate({ input_ids, max_new_tokens: 40, do_sample: false });
      return tokenizer.decode(ids!, { skip_special_tokens: true });
    };
    const before = options.prompt === undefined ? null : await sample();
    const first = test.length > 0 ? await trainer.evaluate() : null;
    const out = await trainer.train({ resume_from_checkpoint: options.resume ?? false });
    // an evaluation at the end of the last epoch is the one asked for
    const end = trainer.state.log_history.filter((e) => 'eval_loss' in e).at(-1);
    const done = end?.step === trainer.state.global_step ? { eval_loss: end['eval_loss']! } : null;
    const last = test.length > 0 ? (done ?? (await trainer.evaluate())) : null;
    const kind = rank === undefined ? 'model' : 'adapter';
    const result = path.join(options.output, kind);
    await trainer.sync();
    const trained = trainer.model;
    if (trained instanceof PeftModel) await save_adapter(trained, result);
    else await trained.save_pretrained(result, { dtype: 'float32', extra_files: await tokenizerFiles(options) });
    const made: Finetuned = {
      output_dir: options.output,
      global_step: out.global_step,
      stopped_by: out.stopped_by,
      training_loss: out.training_loss,
      ...(first && last && { eval_loss_before: first.eval_loss, eval_loss_after: last.eval_loss }),
      seconds: out.train_runtime,
      tokens_per_second: out.train_tokens_per_second,
      ...(before !== null && { text_before: before, text_after: await sample() }),
      [kind]: result,
    };
    if (trained instanceof PeftModel) {
      if (options.merge) {
        const merged = trained.merge_and_unload();
        made.merged = path.join(options.output, 'merged');
        await merged.save_pretrained(made.merged, {
          dtype: 'float32',
          extra_files: await tokenizerFiles(options),
        });
        merged.dispose();
      }
      trained.dispose();
    }
    return made;
  } finally {
    trainer.dispose();
    model.dispose();
  }
}
