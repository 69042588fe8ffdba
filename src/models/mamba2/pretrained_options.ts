/** Options of from_pretrained() of a model, and their table. */
import { computeDtypeKind, computeDtypeOf, type DtypeLike } from '../../base/compute_dtypes.js';
import { deviceKind, type DeviceLike, type DeviceMap, type MaxMemory, type TpPlan } from '../../base/devices.js';
import * as kinds from '../../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../../base/options.js';
import { HUB_OTHERS, HUB_RULES, type HubOptions } from '../../checkpoints/hub_options.js';
import { MAP_RULES, mapRequest, selectedFor } from '../../engine/placement/request.js';
import type { QuantizationConfig, TorchAoConfig } from '../../quant/index.js';
import { ENGINE_OPTION_CLASHES, ENGINE_OPTION_RULES, type EngineOptions } from '../engine_options.js';
import type { Mamba2ConfigFields } from './config.js';

export interface PretrainedOptions extends EngineOptions, HubOptions {
  /**
   * 'auto' (default: the best there is), 'cpu', 'gpu', 'tensorflow', 'wasm' or 'js'; or as PyTorch names it: 0, 'cuda',
   * 'cuda:1'. Without it a backend chosen before stays.
   */
  device?: DeviceLike;
  /**
   * Where the layers lie, as accelerate has it: 'auto' ('balanced'), 'balanced_low_0' or 'sequential' share them out over the GPUs there are, a record
   * says it by module: { 'backbone.embeddings': 0, 'backbone.layers': 0, 'backbone.layers.3': 1, … }. Also a device. Not together with device.
   */
  device_map?: DeviceMap;
  /** Most bytes of weights for each device when they are shared out, e.g. { 0: '10GB', 1: '20GiB' }. Default: what is free on the GPUs. */
  max_memory?: MaxMemory;
  /**
   * 'auto' splits every layer over the GPUs there are, each of which computes its part of it at once (tensor parallelism); on one device it is as without. For
   * generation. Not together with device_map.
   */
  tp_plan?: TpPlan;
  /** How many devices tp_plan takes. Default: all GPUs. Without GPUs so many logical devices of the processor, to try it out. */
  tp_size?: number;
  /** dtype by its older name in transformers. */
  torch_dtype?: DtypeLike;
  /**
   * Quantise the matrices while loading, one at a time: Int4WeightOnlyConfig, Int8WeightOnlyConfig or TorchAoConfig.
   * A checkpoint that is quantised already needs none.
   */
  quantization_config?: QuantizationConfig | TorchAoConfig;
  /** Configuration keys that replace the folder's, for example { norm_groups: 'full' }. */
  config?: Partial<Mamba2ConfigFields>;
  /** Called with things worth knowing, such as a head that is tied and stored apart. */
  on_warning?: (message: string) => void;
}

/** Rules of PretrainedOptions. */
export const PRETRAINED_RULES: OptionRules<PretrainedOptions> = {
  ...HUB_RULES,
  ...ENGINE_OPTION_RULES,
  device: { kind: deviceKind, default: 'auto' },
  ...MAP_RULES,
  torch_dtype: { kind: computeDtypeKind },
  // an instance, judged by quantizationConfig(), which names the classes
  quantization_config: { kind: kinds.orNull(kinds.object) },
  config: { kind: kinds.object },
};

const ON_DEVICES = 'layers lie on devices (device_map) and are not offloaded';

/** What transformers and transformers.js call otherwise, or have besides. */
export const PRETRAINED_OTHERS: OtherNames = {
  ...HUB_OTHERS,
  load_in_4bit: { why: 'pass quantization_config: new Int4WeightOnlyConfig()', off: [false] },
  load_in_8bit: { why: 'pass quantization_config: new Int8WeightOnlyConfig()', off: [false] },
  low_cpu_mem_usage: { why: 'weights are read one at a time anyhow', off: [true, false] },
  attn_implementation: { why: 'a Mamba-2 has no attention' },
  use_flash_attention_2: { why: 'a Mamba-2 has no attention', off: [false] },
  use_mamba_kernels: { why: 'which kernels run is chosen by the device', off: [true] },
  offload_folder: { why: ON_DEVICES },
  offload_state_dict: { why: ON_DEVICES, off: [false] },
  offload_buffers: { why: ON_DEVICES, off: [false] },
  output_loading_info: { why: 'what is worth knowing is told to on_warning', off: [false] },
  ignore_mismatched_sizes: { why: 'a checkpoint whose shapes do not fit is refused', off: [false] },
  use_safetensors: { why: 'the container is found by the files that are there', off: [true] },
  from_tf: { why: 'the container is found by the files that are there', off: [false] },
  from_flax: { why: 'Flax checkpoints are not read', off: [false] },
  variant: { why: 'convert the files of the variant to a folder of their own' },
  gguf_file: { why: 'GGUF files are not read; take the checkpoint that they were made of' },
  adapter_kwargs: { why: 'load an adapter with load_peft_model()' },
  state_dict: { why: 'save the weights to a folder and load that' },
  model_file_name: { why: 'the container is found by the files that are there' },
  session_options: { why: 'there is no ONNX session; see EngineOptions' },
  use_external_data_format: { why: 'there are no ONNX files' },
};

/** Options of AutoModelForCausalLM.from_pretrained() and of Mamba2ForCausalLM's. */
export const PRETRAINED_TABLE = new OptionTable<PretrainedOptions>('from_pretrained()', PRETRAINED_RULES, {
  others: PRETRAINED_OTHERS,
  clashes: [
    ...ENGINE_OPTION_CLASHES,
    {
      option: 'device_map',
      when: ({ device }) => device !== undefined,
      why: 'and device is given too: both say where the model lies, so pass either',
    },
    {
      option: 'torch_dtype',
      when: ({ dtype, torch_dtype }) => dtype !== undefined && computeDtypeOf(dtype) !== computeDtypeOf(torch_dtype),
      why: 'and dtype is another: they are one option by two names, so pass either',
    },
  ],
});

/** The options of a loading call, sorted by who reads them. */
export interface LoadingPlan {
  /** Null where a backend chosen before stays. */
  readonly device: DeviceLike | null;
  readonly engine: EngineOptions;
}

const ENGINE_NAMES = Object.keys(ENGINE_OPTION_RULES) as (keyof EngineOptions)[];

/** What loading does with its options, which are checked. @throws ArgumentError for devices and sizes of device_map and max_memory that are none */
export function loadingPlan(options: PretrainedOptions): LoadingPlan {
  const { device, dtype = options.torch_dtype } = options;
  const engine = Object.fromEntries(
    ENGINE_NAMES.filter((name) => options[name] !== undefined).map((name) => [name, options[name]]),
  );
  const map = mapRequest(options);
  return {
    device: device ?? (map && selectedFor(map)),
    engine: { ...engine, ...(dtype !== undefined && { dtype }) },
  };
}
