/** `mamba2 quantize`: a float checkpoint to int4 or int8, larger than memory or not. */
import { Option, type Command } from 'commander';
import { CheckpointError } from '../base/errors.js';
import type { CheckpointQuantization } from '../models/quantize.js';
import type { QuantizationConfig, Rounding, ScaleDtype } from '../quant/config.js';
import { onStopSignal } from '../base/stop_signals.js';
import { note, write } from './output.js';
import { formatBytes, ProgressBar } from './progress.js';

export interface QuantizeCommandOptions {
  bits: '4' | '8';
  groupSize: string;
  includeInputOutputEmbeddings?: boolean;
  skip?: string[];
  rounding: Rounding;
  scaleDtype: ScaleDtype;
  activationQuantization: boolean;
  maxShardSize?: string;
  legacyJson?: boolean;
  report?: boolean;
  json?: boolean;
}

export function registerQuantize(program: Command): void {
  program
    .command('quantize')
    .description('quantise the weights of a checkpoint to int4 or int8')
    .argument('<src>', 'folder of a float checkpoint')
    .argument('<dst>', 'folder to write')
    .addOption(new Option('--bits <n>', 'bits a weight').choices(['4', '8']).default('4'))
    .addOption(
      new Option('--group-size <n>', 'input channels that share a scale, int4')
        .choices(['32', '64', '128', '256'])
        .default('128'),
    )
    .option('--include-input-output-embeddings', 'quantise the embedding and the head too')
    .option('--skip <module...>', 'modules to leave in float: a name or the end of one, * for any characters')
    .addOption(
      new Option(
        '--rounding <how>',
        'range of a group: from least to largest, or searched for the least error (slower)',
      )
        .choices(['minmax', 'search'])
        .default('minmax'),
    )
    .addOption(
      new Option('--scale-dtype <type>', 'type of the scales').choices(['auto', 'float32', 'bfloat16']).default('auto'),
    )
    .option(
      '--no-activation-quantization',
      'never round activations when the model runs, neither to int8 on a CPU nor to 16 bits on a GPU',
    )
    .option('--max-shard-size <size>', 'largest file of weights, e.g. 2GB (default: 5GB)')
    .option('--legacy-json', 'write Infinity in config.json as transformers 4.x reads it')
    .option('--report', 'print the relative error of every weight')
    .option('--json', 'print the report as JSON')
    .action(quantize);
}

async function configOf(options: QuantizeCommandOptions): Promise<QuantizationConfig> {
  const { Int4WeightOnlyConfig, Int8WeightOnlyConfig } = await import('../quant/config.js');
  const shared = {
    modules_to_not_convert: options.skip ?? [],
    include_input_output_embeddings: options.includeInputOutputEmbeddings ?? false,
    scale_dtype: options.scaleDtype,
  };
  if (options.bits === '8') return new Int8WeightOnlyConfig(shared);
  return new Int4WeightOnlyConfig({
    ...shared,
    group_size: Number(options.groupSize),
    rounding: options.rounding,
    activation_quantization: options.activationQuantization,
  });
}

/** Runs a quantisation, with a progress bar, and cleanly stopped by Ctrl-C. @throws whatever quantizeCheckpoint throws */
async function quantize(src: string, dst: string, options: QuantizeCommandOptions): Promise<void> {
  const { quantizeCheckpoint } = await import('../models/quantize.js');
  const config = await configOf(options);
  const stop = new AbortController();
  const off = onStopSignal(() => stop.abort(new CheckpointError('Interrupted. Nothing that looks finished was left.')));
  const bar = new ProgressBar('Quantising');
  const start = performance.now();
  try {
    const done = await quantizeCheckpoint(src, dst, config, {
      max_shard_size: options.maxShardSize,
      legacy_json: options.legacyJson,
      signal: stop.signal,
      on_progress: ({ written, total }) => bar.update(written, total),
    });
    bar.end();
    for (const warning of done.warnings) note(`Warning: ${warning}`);
    if (options.json) await write(`${JSON.stringify({ src, dst, ...done }, null, 2)}\n`);
    else if (options.report) await write(reportText(done));
    note(summary(done, dst, (performance.now() - start) / 1000));
  } finally {
    bar.end();
    off();
  }
}

/** A line a weight, with the mean below. */
function reportText({ weights, skipped }: CheckpointQuantization): string {
  const width = Math.max(...weights.map(({ name }) => name.length));
  const lines = weights.map(({ name, shape, bits, relative_error: error }) => {
    const size = `[${shape.join(', ')}]`.padEnd(16);
    return `${name.padEnd(width)}  ${size} ${bits.toFixed(2)} bits  error ${(100 * (error ?? 0)).toFixed(2)} %`;
  });
  const mean = weights.reduce((sum, w) => sum + (w.relative_error ?? 0), 0) / weights.length;
  lines.push(`${'mean'.padEnd(width)}  ${''.padEnd(16)} ${''.padEnd(9)}  error ${(100 * mean).toFixed(2)} %`);
  for (const { name, reason } of skipped) lines.push(`${name.padEnd(width)}  left in float: ${reason}`);
  return `${lines.join('\n')}\n`;
}

function summary(
  { weights, skipped, source_bytes, bytes }: CheckpointQuantization,
  dst: string,
  seconds: number,
): string {
  const left = skipped.length > 0 ? `; ${skipped.length} matrices stay in float (--report says why)` : '';
  return `Quantised ${weights.length} matrices${left}. ${formatBytes(source_bytes)} became ${formatBytes(bytes)} in ${dst}, in ${seconds.toFixed(1)} s.`;
}
