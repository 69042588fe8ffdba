/** The border between options of functions and flags of commands: messages speak of what was typed. */
import type { Command } from 'commander';
import { Mamba2Error } from '../base/errors.js';

/** Options that have a flag of another name. */
const FLAGS: Readonly<Record<string, string>> = {
  output_dir: 'output',
  num_train_epochs: 'epochs',
  per_device_train_batch_size: 'batch-size',
  gradient_accumulation_steps: 'accumulate',
  lr_scheduler_type: 'scheduler',
  dataset_text_field: 'text-field',
  target_modules: 'target',
  r: 'lora',
  modules_to_not_convert: 'skip',
  resume_from_checkpoint: 'resume',
};

const FINETUNE = 'finetune has it';

/** Flags of transformers, trl, PEFT and other tools, and what to type here. */
const OTHERS: Readonly<Record<string, string>> = {
  'max-length': 'Use --max-new-tokens: it does not count the prompt.',
  'max-tokens': 'Use --max-new-tokens.',
  'n-predict': 'Use --max-new-tokens.',
  'do-sample': 'Sampling is on as soon as --temperature, --top-k, --top-p, --min-p or --seed is given.',
  'num-beams': 'Beam search is an option of generate() in a program.',
  'load-in-4bit': 'Pack the weights once: mamba2 quantize SRC DST --bits 4.',
  'load-in-8bit': 'Pack the weights once: mamba2 quantize SRC DST --bits 8.',
  quantization: 'Pack the weights once: mamba2 quantize SRC DST.',
  'lora-r': `Use --lora RANK; ${FINETUNE}.`,
  'use-peft': `Use --lora RANK; ${FINETUNE}.`,
  'lora-target-modules': `Use --target MODULES; ${FINETUNE}.`,
  'output-dir': `Use --output DIR; ${FINETUNE}.`,
  'num-train-epochs': `Use --epochs N; ${FINETUNE}.`,
  'per-device-train-batch-size': `Use --batch-size N; ${FINETUNE}.`,
  'gradient-accumulation-steps': `Use --accumulate N; ${FINETUNE}.`,
  'lr-scheduler-type': `Use --scheduler NAME; ${FINETUNE}.`,
  'train-file': `Use --train FILE; ${FINETUNE}.`,
  'validation-file': `Use --eval FILE; ${FINETUNE}.`,
  'dataset-name': `Use --train FILE; ${FINETUNE}.`,
  'max-seq-length': `Use --max-length N; ${FINETUNE}.`,
  fp16: 'Nothing is computed in float16, whose range is too small; use --bf16.',
  'model-name-or-path': 'Use --model.',
  'model-id': 'Use --model.',
  'tokenizer-name': 'Use --tokenizer.',
  token: 'A token among the arguments can be seen by every user of the machine: set HF_TOKEN, or run `hf auth login`.',
  'hf-token':
    'A token among the arguments can be seen by every user of the machine: set HF_TOKEN, or run `hf auth login`.',
  'trust-remote-code': 'No code of a repository is ever run.',
  framework: 'There is one framework, TensorFlow.js.',
  input: 'Give the text as an argument, or on standard input.',
  prompt: 'Give the text as an argument, or on standard input.',
};

/** Names of a command's long flags, without dashes. */
function flagsOf(command: Command): Set<string> {
  return new Set(command.options.flatMap(({ long }) => (long ? [long.replace(/^--/, '')] : [])));
}

/**
 * What to say of a flag that a command does not have, in place of commander's own words.
 * @param text commander's message
 */
export function adviseFlag(text: string, command: Command): string {
  const given = /unknown option '-{1,2}([^'=]+)(?:=[^']*)?'/.exec(text)?.[1];
  if (given === undefined) return text;
  const name = given.toLowerCase().replaceAll('_', '-');
  const known = flagsOf(command);
  const here = known.has(name) ? name : FLAGS[name.replaceAll('-', '_')];
  const advice = here !== undefined && known.has(here) ? `Use --${here}.` : OTHERS[name];
  return advice === undefined ? text : `error: unknown option '--${given}'. ${advice}\n`;
}

/** The message of an error with the names of options replaced by the flags of the command that ran. */
export function inFlags(error: unknown, command: Command | null): string {
  const message = error instanceof Error ? error.message : String(error);
  if (!(error instanceof Mamba2Error) || !command) return message;
  const known = flagsOf(command);
  const flagOf = (option: string): string | null => {
    const flag = FLAGS[option] ?? option.replaceAll('_', '-');
    return known.has(flag) ? `--${flag}` : null;
  };
  const { option } = error.data;
  // "from_pretrained(): dtype is …" of who typed --dtype
  const own = typeof option === 'string' ? flagOf(option) : null;
  const text = own === null ? message : message.replace(/^(?:new )?[\w.]+\(\):? /, '');
  return text.replace(/(?<![\w'"/.\\-])[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*(?![\w'"/(\\-])/g, (word) => {
    // a word of one part is an option only where the error says so: "device" is a word of English, too
    if (!word.includes('_') && word !== option && word !== 'dtype') return word;
    return flagOf(word) ?? word;
  });
}
