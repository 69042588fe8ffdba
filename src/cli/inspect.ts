/** `mamba2 inspect`: what is in a model folder or a file of weights, from headers alone. */
import type { Command } from 'commander';
import type { Inspection } from '../models/checkpoints.js';
import { CheckpointError } from '../base/errors.js';
import { write, table } from './output.js';
import { formatBytes } from './progress.js';

interface Options {
  json?: boolean;
  tensors?: boolean;
}

export function registerInspect(program: Command): void {
  program
    .command('inspect')
    .description('show what a model folder or a file of weights holds, and why it would not load')
    .argument('<path>', 'model folder, or a .safetensors, .bin, .pt, .pth or index file')
    .option('--tensors', 'list every tensor')
    .option('--json', 'print JSON')
    .action(async (target: string, options: Options) => {
      const { inspectCheckpoint } = await import('../models/checkpoints.js');
      const found = await inspectCheckpoint(target, {
        // imported only where it is needed: it brings TensorFlow.js along
        quantized: async (source) => (await import('../models/mamba2/pretrained.js')).quantizedParts(source),
      });
      await write(options.json ? json(found) : text(found, options.tensors ?? false));
      if (found.problems.length > 0) throw new CheckpointError(`${target} would not load.`, { file: target });
    });
}

/** Infinity is no JSON number: it is written as transformers does. */
function json(found: Inspection): string {
  const replacer = (_key: string, value: unknown): unknown =>
    typeof value === 'number' && !Number.isFinite(value) ? { __float__: String(value) } : value;
  return `${JSON.stringify(found, replacer, 2)}\n`;
}

const FORMATS = {
  hf: 'Hugging Face',
  'state-spaces': 'state-spaces (mamba_ssm)',
  mistral: 'Mistral native',
};

function text(found: Inspection, withTensors: boolean): string {
  const rows: [string, string][] = [['Path', found.path]];
  if (found.format) rows.push(['Format', FORMATS[found.format]]);
  for (const { name, bytes } of found.files) rows.push(['File', `${name}, ${formatBytes(bytes)}`]);
  rows.push(['Parameters', found.parameters.toLocaleString('en-US')]);
  for (const [dtype, { elements, bytes }] of Object.entries(found.dtypes))
    rows.push(['Stored as', `${dtype}: ${elements.toLocaleString('en-US')} elements, ${formatBytes(bytes)}`]);
  const quantization = found.config?.quantization_config as { quant_method?: string } | undefined;
  if (quantization) rows.push(['Quantised', String(quantization.quant_method ?? 'yes')]);
  const d = found.dimensions;
  if (d) {
    rows.push(
      ['Layers', String(d.layers)],
      ['Hidden size', `${d.hidden}, inner ${d.inner}`],
      [
        'Heads',
        `${d.heads} of ${d.head_dim}, ${d.groups} ${d.groups === 1 ? 'group' : 'groups'}, state size ${d.state}`,
      ],
      ['Vocabulary', `${d.vocab} rows, head ${d.tied ? 'tied to the embeddings' : 'of its own'}`],
    );
  }
  let out = table(rows);
  if (withTensors)
    out += `\n${table(found.tensors.map(({ name, dtype, shape }) => [name, `${dtype} [${shape.join(', ')}]`] as const))}`;
  if (found.problems.length > 0) out += `\nIt would not load:\n${found.problems.map((p) => `- ${p}\n`).join('')}`;
  else if (found.format) out += '\nIt would load.\n';
  return out;
}
