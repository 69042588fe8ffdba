/**
 * Converts a Mamba-2 checkpoint (Hugging Face, state-spaces, Mistral native, TensorFlow.js) to the Hugging Face
 * safetensors layout or to a TensorFlow.js LayersModel.
 * The same as `mamba2 convert`:
 *
 *     npx tsx scripts/convert_hf_checkpoint.ts SRC DST [--dtype bfloat16 --max-shard-size 2GB --verify]
 */
import { Command } from 'commander';
import { convert, describeConvert } from '../src/cli/convert.js';
import { report } from '../src/cli/output.js';

try {
  await describeConvert(new Command('convert_hf_checkpoint')).action(convert).parseAsync();
} catch (error) {
  report(error, false);
  process.exitCode = 1;
}
