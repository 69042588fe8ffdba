/** What the constructors of our layers take: tfjs' own options of a layer, which pass, and each layer's, by a table. */
import { ConfigError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import type { LayerArgs } from './base.js';

/** tfjs judges these. A saved layer may have null for some. */
const OF_TFJS: OptionRules<LayerArgs> = {
  name: { kind: kinds.anything },
  trainable: { kind: kinds.anything },
  dtype: { kind: kinds.anything },
  inputShape: { kind: kinds.anything },
  batchInputShape: { kind: kinds.anything },
  batchSize: { kind: kinds.anything },
  inputDType: { kind: kinds.anything },
  weights: { kind: kinds.anything },
};

/** Names of Hugging Face's configurations, of mamba_ssm's and of Keras. */
const OTHERS: OtherNames = {
  hidden_size: 'hiddenSize',
  d_model: 'hiddenSize',
  units: 'hiddenSize',
  outputDim: 'hiddenSize',
  vocab_size: 'vocabSize',
  inputDim: 'vocabSize',
  num_heads: 'numHeads',
  nheads: 'numHeads',
  head_dim: 'headDim',
  headdim: 'headDim',
  n_groups: 'nGroups',
  ngroups: 'nGroups',
  state_size: 'stateSize',
  d_state: 'stateSize',
  conv_kernel: 'convKernel',
  d_conv: 'convKernel',
  chunk_size: 'chunkSize',
  use_bias: 'useBias',
  use_conv_bias: 'useConvBias',
  conv_bias: 'useConvBias',
  layer_norm_epsilon: 'epsilon',
  eps: 'epsilon',
  initializer_range: 'initializerRange',
  time_step_limit: 'timeStepLimit',
  dt_limit: 'timeStepLimit',
  time_step_min: 'timeStepMin',
  dt_min: 'timeStepMin',
  time_step_max: 'timeStepMax',
  dt_max: 'timeStepMax',
  time_step_floor: 'timeStepFloor',
  dt_init_floor: 'timeStepFloor',
  norm_groups: 'normGroups',
  kernel_size: 'kernelSize',
  filters: 'channels',
  expand: { why: 'numHeads · headDim is the inner width' },
  batch_input_shape: 'batchInputShape',
  input_shape: 'inputShape',
};

/** The table of a layer's arguments. @param where 'new Mamba2Mixer()' @param rules of what is the layer's own */
export function layerTable<A extends LayerArgs>(
  where: string,
  rules: OptionRules<Omit<A, keyof LayerArgs>>,
): OptionTable<A> {
  const names = new Set(Object.keys(rules));
  // a name that this layer does not have is no advice
  const others = Object.entries(OTHERS).filter(
    ([, other]) => typeof other !== 'string' || names.has(other) || Object.hasOwn(OF_TFJS, other),
  );
  const all = { ...OF_TFJS, ...rules } as unknown as OptionRules<A>;
  return new OptionTable<A>(where, all, { others: Object.fromEntries(others), error: ConfigError });
}

/** The arguments, checked. @throws ConfigError naming what is unknown, missing or of another kind */
export function checkedArgs<A extends LayerArgs>(
  table: OptionTable<A>,
  args: A,
  needed: readonly (keyof A & string)[],
): A {
  table.checkObject(args);
  // tfjs adds it to the configuration of a saved layer
  const own = Object.entries(args).filter(([name]) => name !== 'customObjects');
  table.check(Object.fromEntries(own) as unknown as A);
  for (const name of needed) {
    if (args[name] !== undefined) continue;
    const { expected } = table.rules[name].kind;
    throw new ConfigError(`${table.where} needs ${name}: ${expected}.`, { option: name, expected });
  }
  return args;
}

/** Sizes. */
export const size = kinds.integer({ min: 1 });
/** Constants. */
export const positive = kinds.number({ above: 0 });
