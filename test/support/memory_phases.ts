/**
 * A process of its own that loads a model and uses it in phases, and says what memory it held at most in each: one line of JSON a phase, in
 * bytes. `node --import tsx test/support/memory_phases.ts '{"dir": "…", "options": {}, "rows": 8}'`
 */
import * as fs from 'node:fs';
import { memoryOf } from './process_memory.js';

/** What is asked for. */
export interface PhasesPlan {
  /** Of the checkpoint. */
  dir: string;
  /** For from_pretrained(); `int4` quantises while loading. */
  options?: Record<string, unknown>;
  int4?: boolean;
  /** Of a batch after the single row; default none. */
  rows?: number;
  /** Tokens of the prompt; default 16. */
  prompt?: number;
  /** New tokens; default 40. */
  tokens?: number;
}

/** Memory in a phase. */
export interface Phase {
  readonly phase: string;
  readonly seconds: number;
  /** The most that was resident. */
  readonly peak: number;
  /** At the end: all, that of no file, and that of files (libraries above all). */
  readonly resident: number;
  readonly anonymous: number;
  readonly files: number;
}

let began = performance.now();

function tell(phase: string): void {
  const told: Phase = {
    phase,
    seconds: (performance.now() - began) / 1000,
    peak: memoryOf('VmHWM')!,
    resident: memoryOf('VmRSS')!,
    anonymous: memoryOf('RssAnon')!,
    files: memoryOf('RssFile')!,
  };
  process.stdout.write(`${JSON.stringify(told)}\n`);
  fs.writeFileSync('/proc/self/clear_refs', '5'); // the peak begins anew
  began = performance.now();
}

async function run(plan: PhasesPlan): Promise<void> {
  const { AutoModelForCausalLM } = await import('../../src/models/auto/index.js');
  const { Int4WeightOnlyConfig } = await import('../../src/quant/index.js');
  const { configureRuntime, loadTensorFlow } = await import('../../src/runtime/index.js');
  tell('import');
  configureRuntime({ compileCache: true });
  loadTensorFlow('cpu');
  tell('tensorflow');
  const model = await AutoModelForCausalLM.from_pretrained(plan.dir, {
    ...plan.options,
    ...(plan.int4 && { quantization_config: new Int4WeightOnlyConfig({ include_input_output_embeddings: true }) }),
  });
  tell('open');
  const row = (i: number): number[] =>
    Array.from({ length: plan.prompt ?? 16 }, (_, k) => 3 + ((i * 31 + k * 37) % 250));
  const generate = (rows: number, max_new_tokens: number): Promise<unknown> =>
    model.generate({
      input_ids: Array.from({ length: rows }, (_, i) => row(i)),
      attention_mask: Array.from({ length: rows }, (_, i) => row(i).map(() => 1)),
      max_new_tokens,
      min_new_tokens: max_new_tokens,
      eos_token_id: null,
    });
  await generate(1, 1);
  tell('first token');
  await generate(1, plan.tokens ?? 40);
  tell('decoding');
  await generate(1, plan.tokens ?? 40);
  tell('decoding again');
  if (plan.rows) {
    await generate(plan.rows, plan.tokens ?? 40);
    tell(`${plan.rows} rows`);
  }
  model.dispose();
}

if (process.argv[1]?.endsWith('memory_phases.ts')) await run(JSON.parse(process.argv[2]!) as PhasesPlan);
