/** `mamba2 convert`: a checkpoint of any kind to Hugging Face's layout or to a TensorFlow.js LayersModel. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { DTYPE_BYTES, floatDtypeOf, type FloatDtype } from '../base/stored_dtypes.js';
import type { ConvertReport } from '../checkpoints/convert.js';
import type { CheckpointSource } from '../checkpoints/source.js';
import { ArgumentError, CheckpointError } from '../base/errors.js';
import { onStopSignal } from '../base/stop_signals.js';
import { numberIn } from './options.js';
import { note } from './output.js';
import { formatBytes, ProgressBar } from './progress.js';

export interface ConvertCommandOptions {
  format: 'hf' | 'tfjs';
  dtype?: FloatDtype;
  maxShardSize?: string;
  legacyJson?: boolean;
  verify?: boolean;
  revision?: string;
  quantize?: 'int4' | 'int8';
  groupSize?: number;
}

/** Adds SRC, DST and the options, which the conversion script shares. */
export function describeConvert(command: Command): Command {
  return command
    .argument('<src>', 'model folder (Hugging Face, state-spaces, Mistral native, TensorFlow.js), or a name on the hub')
    .argument('<dst>', 'folder to write')
    .addOption(
      new Option('--dtype <type>', 'float32, bfloat16 or float16 (default: as stored)').argParser((text) => {
        const dtype = floatDtypeOf(text);
        if (dtype === null || dtype === 'F64') throw new InvalidArgumentError('Expected float32, bfloat16 or float16.');
        return dtype;
      }),
    )
    .addOption(
      new Option('--format <format>', 'Hugging Face safetensors, or a TensorFlow.js LayersModel')
        .choices(['hf', 'tfjs'])
        .default('hf'),
    )
    .option('--max-shard-size <size>', 'largest file of weights, e.g. 2GB (default: 5GB; for tfjs 4MB)')
    .option('--revision <revision>', 'branch, tag or commit on the hub (default: main)')
    .option('--legacy-json', 'write Infinity in config.json as transformers 4.x reads it')
    .addOption(
      new Option('--quantize <kind>', 'pack the matrices, weight-only')
        .choices(['int4', 'int8'])
        .conflicts(['dtype', 'verify']),
    )
    .option(
      '--group-size <n>',
      'weights that share a scale, with --quantize int4 (default: 128)',
      numberIn({ min: 1, whole: true }),
    )
    .option('--verify', 'compare every tensor afterwards, and logits where the model is small enough');
}

export function registerConvert(program: Command): void {
  describeConvert(program.command('convert'))
    .description('convert a checkpoint to the Hugging Face layout or to a TensorFlow.js model')
    .action(convert);
}

/**
 * Runs a conversion, with a progress bar, and cleanly stopped by Ctrl-C.
 * @throws whatever convertCheckpoint throws; CheckpointError when the comparison finds a difference
 */
export async function convert(src: string, dst: string, options: ConvertCommandOptions): Promise<void> {
  if (options.groupSize !== undefined && options.quantize !== 'int4')
    throw new ArgumentError('--group-size goes with --quantize int4 only.', { option: 'group-size' });
  if (options.quantize && options.format === 'tfjs')
    throw new ArgumentError('--quantize writes the Hugging Face layout; --format tfjs has no packed weights.', {
      option: 'format',
    });
  const { openCheckpoint } = await import('../models/checkpoints.js');
  const stop = new AbortController();
  const off = onStopSignal(() => stop.abort(new CheckpointError('Interrupted. Nothing that looks finished was left.')));
  let source: CheckpointSource | null = null;
  try {
    const dir = await locate(src, options.revision, stop.signal);
    if (options.quantize) return await quantize(dir, dst, options, stop.signal);
    source = await openCheckpoint(dir);
    const start = performance.now();
    const report = await write(source, dst, options, stop.signal);
    for (const warning of report.warnings) note(`Warning: ${warning}`);
    const seconds = (performance.now() - start) / 1000;
    note(`Wrote ${report.tensors} tensors, ${formatBytes(report.bytes)}, to ${dst} in ${seconds.toFixed(1)} s.`);
    if (options.verify) await verify(source, dst, report.bytes, stop.signal);
  } finally {
    off();
    await source?.close();
  }
}

/** The folder itself, or the hub's snapshot, fetched with a progress bar. */
async function locate(src: string, revision: string | undefined, signal: AbortSignal): Promise<string> {
  const { locateModel } = await import('../models/locate.js');
  const bar = new ProgressBar('Fetching');
  try {
    const onProgress = ({ written, total }: { written: number; total: number }): void => bar.update(written, total);
    const onWarning = (message: string): void => note(`Warning: ${message}`);
    return await locateModel(src, { revision, signal, on_progress: onProgress, on_warning: onWarning });
  } finally {
    bar.end();
  }
}

/** Packs the matrices while writing, one at a time. */
async function quantize(src: string, dst: string, options: ConvertCommandOptions, signal: AbortSignal): Promise<void> {
  const { quantizeCheckpoint } = await import('../models/quantize.js');
  const { Int4WeightOnlyConfig, Int8WeightOnlyConfig } = await import('../quant/index.js');
  const kind =
    options.quantize === 'int4'
      ? new Int4WeightOnlyConfig(options.groupSize === undefined ? {} : { group_size: options.groupSize })
      : new Int8WeightOnlyConfig();
  const bar = new ProgressBar('Quantising');
  try {
    const report = await quantizeCheckpoint(src, dst, kind, {
      max_shard_size: options.maxShardSize,
      legacy_json: options.legacyJson,
      signal,
      on_progress: ({ written, total }) => bar.update(written, total),
    });
    bar.end();
    for (const warning of report.warnings) note(`Warning: ${warning}`);
    for (const { name, reason } of report.skipped) note(`Left as it is: ${name} (${reason}).`);
    const sizes = `${formatBytes(report.source_bytes)} became ${formatBytes(report.bytes)}`;
    note(`Packed ${report.weights.length} matrices to ${options.quantize}; ${sizes}, in ${dst}.`);
  } finally {
    bar.end();
  }
}

async function write(
  source: CheckpointSource,
  dst: string,
  options: ConvertCommandOptions,
  signal: AbortSignal,
): Promise<ConvertReport> {
  const run =
    options.format === 'tfjs'
      ? (await import('../models/mamba2/tfjs_export.js')).exportLayersModel
      : (await import('../models/checkpoints.js')).convertCheckpoint;
  const bar = new ProgressBar('Converting');
  try {
    return await run(source, dst, {
      dtype: options.dtype,
      max_shard_size: options.maxShardSize,
      legacy_json: options.legacyJson,
      signal,
      on_progress: ({ written, total }) => bar.update(written, total),
    });
  } finally {
    bar.end();
  }
}

/** Compares every tensor. */
async function verify(source: CheckpointSource, dst: string, total: number, signal: AbortSignal): Promise<void> {
  const { openCheckpoint, verifyConversion } = await import('../models/checkpoints.js');
  const copy = await openCheckpoint(dst);
  const bar = new ProgressBar('Verifying');
  let done = 0;
  try {
    const onTensor = (_name: string, bytes: number): void => bar.update((done += bytes), total);
    const { tensors, differences } = await verifyConversion(source, copy, { signal, on_tensor: onTensor });
    bar.end();
    if (differences.length > 0)
      throw new CheckpointError(
        `${dst} is not what ${source.dir} holds:\n${differences.map((d) => `- ${d}`).join('\n')}\nDo not use it; convert again.`,
        { file: dst, differences },
      );
    note(`Verified: all ${tensors} tensors are equal.`);
    await verifyLogits(source, copy);
  } finally {
    bar.end();
    await copy.close();
  }
}

/** Models beyond this many bytes of float32 are not run twice for a comparison. */
const LOGITS_LIMIT = 2 ** 31;

/** Runs both models on the same ids. Equal weights must give equal logits; narrowed ones are only told about. */
async function verifyLogits(source: CheckpointSource, copy: CheckpointSource): Promise<void> {
  let elements = 0;
  let same = true;
  for (const { name, dtype, bytes } of copy.tensors.values()) {
    elements += bytes / DTYPE_BYTES[dtype];
    same &&= dtype === source.tensors.get(name)?.dtype;
  }
  if (elements * 4 > LOGITS_LIMIT) {
    note('Logits were not compared: the model is too large to be run twice for that.');
    return;
  }
  const [a, b] = [await logitsOf(source.dir), await logitsOf(copy.dir)];
  let worst = 0;
  let size = 0;
  for (const [i, x] of a.entries()) {
    // a NaN in either is a difference
    worst = Math.max(worst, Number.isNaN(x - b[i]!) ? Infinity : Math.abs(x - b[i]!));
    size = Math.max(size, Math.abs(x));
  }
  const told = `logits up to ${size.toPrecision(3)} differ by ${worst.toPrecision(2)} at most`;
  if (same && worst > 1e-5 * Math.max(1, size))
    throw new CheckpointError(`${copy.dir}: ${told}, although the weights are equal. config.json differs in effect.`, {
      file: copy.dir,
      worst,
    });
  note(`Verified: ${told}.`);
}

/** Logits of a model for sixteen ids spread over its vocabulary. */
async function logitsOf(dir: string): Promise<Float32Array> {
  const { Mamba2ForCausalLM } = await import('../models/mamba2/index.js');
  const model = await Mamba2ForCausalLM.from_pretrained(dir, { engine: 'eager', on_warning: () => {} });
  try {
    const vocab = model.config.vocab_size;
    const ids = Array.from({ length: 16 }, (_, i) => (i * 7919 + 13) % vocab);
    const out = model.forward({ input_ids: [ids], use_cache: false });
    const logits = (await out.logits.data()) as Float32Array;
    out.logits.dispose();
    return logits;
  } finally {
    model.dispose();
  }
}
