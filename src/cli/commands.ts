/**
 * The table of commands. One file per command exports a function that adds it to the program. Such a file imports at its
 * top only what describes the options; models and TensorFlow are imported when the command runs, so that `--help` and
 * wrong usage answer at once.
 */
import type { Command } from 'commander';
import { registerChat } from './chat.js';
import { registerConvert } from './convert.js';
import { registerEnv } from './env.js';
import { registerEval } from './eval.js';
import { registerFinetune } from './finetune.js';
import { registerInspect } from './inspect.js';
import { registerGenerate, registerRun } from './generate.js';
import { registerQuantize } from './quantize.js';
import { registerServe } from './serve.js';
import { registerSetup } from './setup.js';
import { registerState } from './state.js';
import { registerWorker } from './worker.js';

export type RegisterCommand = (program: Command) => void;

export const COMMANDS: readonly RegisterCommand[] = [
  registerGenerate,
  registerRun,
  registerChat,
  registerState,
  registerServe,
  registerEval,
  registerFinetune,
  registerWorker,
  registerSetup,
  registerEnv,
  registerInspect,
  registerConvert,
  registerQuantize,
];
