/** Options of what writes checkpoints, and of what looks at them: their tables. */
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import { DTYPE_BYTES, type FloatDtype } from '../base/stored_dtypes.js';
import type { ConvertOptions, VerifyOptions } from './convert.js';
import { HUB_OTHERS, HUB_RULES, type HubOptions } from './hub_options.js';
import type { InspectOptions } from './inspect.js';
import type { WriteSafetensorsOptions } from './safetensors_writer.js';
import type { SaveCheckpointOptions } from './save.js';
import type { SaveTfjsOptions } from './tfjs.js';
import type { ValidateOptions } from './validate.js';
import type { ConfigJsonOptions } from './config_json.js';

const signal = { kind: kinds.abortSignal };
const metadata = { kind: kinds.recordOf(kinds.anyText, 'an object of texts') };
const legacy_json = { kind: kinds.boolean, default: false };

/** Rules of what all that writes a checkpoint takes. */
export const COMMON_RULES = {
  // what a size is as text is read by parseSize()
  max_shard_size: { kind: kinds.either(kinds.number({ above: 0 }), kinds.text), default: '5GB' },
  legacy_json,
  signal,
  on_progress: { kind: kinds.func },
};
export const EXTRA_FILES = {
  kind: kinds.recordOf(
    kinds.named('a text or bytes', (v) => typeof v === 'string' || v instanceof Uint8Array),
    'an object of texts or bytes by file name',
  ),
};

/** Rules of SaveCheckpointOptions. */
const SAVE_RULES: OptionRules<SaveCheckpointOptions> = { ...COMMON_RULES, metadata, extra_files: EXTRA_FILES };

/** What transformers calls otherwise, or has besides. */
export const SAVE_OTHERS: OtherNames = {
  torch_dtype: 'dtype',
  progress_callback: 'on_progress',
  abort_signal: 'signal',
  safe_serialization: { why: 'weights are always written as safetensors', off: [true] },
  push_to_hub: { why: 'upload the folder with huggingface-cli', off: [false] },
  save_function: { why: 'weights are always written as safetensors' },
  state_dict: { why: 'the weights of the model are written' },
  is_main_process: { why: 'one process writes', off: [true] },
  variant: { why: 'write to a folder of its own' },
  save_peft_format: { why: 'an adapter is saved with save_adapter()' },
};

export const SAVE_TABLE = new OptionTable<SaveCheckpointOptions>('saveCheckpoint()', SAVE_RULES, {
  others: SAVE_OTHERS,
});

export const SAVE_TFJS_TABLE = new OptionTable<SaveTfjsOptions>(
  'saveTfjs()',
  {
    ...SAVE_RULES,
    max_shard_size: { ...SAVE_RULES.max_shard_size, default: 4_000_000 },
    generatedBy: { kind: kinds.text },
  },
  { others: SAVE_OTHERS },
);

const FLOATS = Object.keys(DTYPE_BYTES).filter((name) => /F/.test(name)) as FloatDtype[];

/** Rules of ConvertOptions. */
export const CONVERT_RULES: OptionRules<ConvertOptions> = { ...COMMON_RULES, dtype: { kind: kinds.oneOf(...FLOATS) } };

export const CONVERT_TABLE = new OptionTable<ConvertOptions>('convertCheckpoint()', CONVERT_RULES, {
  others: SAVE_OTHERS,
});

export const VERIFY_TABLE = new OptionTable<VerifyOptions>('verifyConversion()', {
  signal,
  on_tensor: { kind: kinds.func },
});

export const VALIDATE_TABLE = new OptionTable<ValidateOptions>('validateCheckpoint()', {
  allow: { kind: kinds.func },
  replaced: { kind: kinds.func },
});

export const INSPECT_TABLE = new OptionTable<InspectOptions>('inspectCheckpoint()', {
  quantized: { kind: kinds.func },
});

export const RESOLVE_TABLE = new OptionTable<HubOptions>('resolveModel()', HUB_RULES, { others: HUB_OTHERS });

export const SAFETENSORS_TABLE = new OptionTable<WriteSafetensorsOptions>('writeSafetensors()', { metadata, signal });

export const CONFIG_JSON_TABLE = new OptionTable<ConfigJsonOptions>('stringifyConfigJson()', { legacy_json });
