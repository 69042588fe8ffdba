/**
 * LoRA: low-rank adapters on a frozen model (float32 or quantised), trained, switched, merged and taken off again, in
 * folders that PEFT reads and writes.
 */
export { LoraConfig, type LoraConfigFields, type LoraConfigNotes, matchesModule } from './config.js';
export {
  type AdapterValues,
  type AddAdapterOptions,
  get_peft_model,
  type MergeOptions,
  PeftModel,
  type PeftOptions,
} from './model.js';
export { LoraAdapter, type AdaptedModule } from './adapter.js';
export { loraMatrix, lowRankDelta, type LowRank } from './matrix.js';
export {
  ADAPTER_CONFIG,
  ADAPTER_WEIGHTS,
  load_adapter,
  load_peft_model,
  read_adapter_config,
  save_adapter,
} from './files.js';
