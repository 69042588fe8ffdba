/**
 * The configuration of checkpoints that are not Hugging Face's own: mamba_ssm's config.json (state-spaces) and Mistral's
 * params.json leave most sizes out, and what they say can be wrong. The shapes of the weights decide; what shapes cannot
 * tell comes from the file, then from mamba_ssm's defaults. What this package's model cannot express is refused.
 */
import { CheckpointError, ConfigError } from '../../../base/errors.js';
import { quote } from '../../../base/quote.js';
import { torchDtypeName } from '../../../base/stored_dtypes.js';
import type { TensorShapes } from '../../../checkpoints/model_format.js';
import { isFla } from './written_by.js';

type Config = Record<string, unknown>;

/** mamba_ssm's defaults for keys of ssm_cfg that shapes cannot tell. */
const MAMBA_SSM = {
  chunk_size: 256,
  dt_min: 0.001,
  dt_max: 0.1,
  dt_init_floor: 1e-4,
  dt_limit: [0, Infinity],
} as const;

function refuse(file: string, what: string, data: Record<string, unknown>): never {
  throw new ConfigError(`${file}: ${what} This package's Mamba-2 has no such part.`, { file, ...data });
}

/** Tensors that only other architectures have, and what they are. */
const FOREIGN: readonly (readonly [RegExp, string])[] = [
  [/\.(x_proj|dt_proj)\./, 'it belongs to a Mamba-1 mixer'],
  [
    /\.mixer\.(Wqkv|Wq|Wk|Wv|q_proj|k_proj|v_proj|o_proj)\.|\.(self_attn|attention)\./,
    'it belongs to an attention layer',
  ],
  [/\.(mlp|feed_forward)\.|\.norm2\./, 'it belongs to an MLP block'],
  [/\.mixer\.init_states$/, 'it holds learnt initial states'],
  [/\.(norm|norm_f)\.bias$/, 'it belongs to a LayerNorm; RMSNorm has no bias'],
];

/**
 * Refuses models with parts that a Mamba-2 of this package does not have.
 * @param config the file's own keys, whichever of the three kinds
 * @param file its path, for messages
 * @throws ConfigError with the reason
 */
export function refuseInexpressible(tensors: TensorShapes, config: Config, file: string): void {
  const expected = (holder: Config, key: string, wanted: unknown, reason: string): void => {
    const value = holder[key];
    if (value === undefined || value === null || value === wanted) return;
    refuse(file, `${key} is ${quote(value)}: ${reason}.`, { option: key, got: value, expected: wanted });
  };
  const mixer = (holder: Config): void => {
    expected(holder, 'norm_before_gate', false, 'the mixer would normalise before the gate');
    expected(holder, 'D_has_hdim', false, 'D would have an entry per channel');
    expected(holder, 'rmsnorm', true, 'the mixer would have no gated norm');
  };
  if (config.model_type === 'mamba2') {
    // transformers writes some of these keys too, and reads none of them
    if (isFla(config)) mixer(config);
    if (config.hidden_act !== 'swish') expected(config, 'hidden_act', 'silu', 'the mixer has SiLU alone');
  } else {
    const ssm = (config.ssm_cfg ?? {}) as Config;
    expected(config, 'd_intermediate', 0, 'every block would hold a gated MLP');
    expected(config, 'rms_norm', true, 'the norms would be LayerNorms');
    expected(ssm, 'layer', 'Mamba2', 'the mixers would be of another kind');
    const attention = config.attn_layer_idx ?? [];
    if (!Array.isArray(attention) || attention.length > 0)
      refuse(file, `attn_layer_idx is ${quote(attention)}: these layers are attention.`, {
        option: 'attn_layer_idx',
        got: attention,
      });
    const inner = dimension(tensors, 'backbone.layers.0.mixer.out_proj.weight', 1);
    for (const holder of [config, ssm]) {
      mixer(holder);
      const whole = holder.d_inner ?? inner;
      // without weights nothing says what the whole is
      if (whole !== null) expected(holder, 'd_ssm', whole, 'part of the mixer would be an MLP');
    }
  }
  for (const [name, { file: where }] of tensors)
    for (const [pattern, what] of FOREIGN)
      if (pattern.test(name)) refuse(where, `tensor ${name}: ${what}.`, { tensor: name });
}

function dimension(tensors: TensorShapes, name: string, axis: number): number | null {
  return tensors.get(name)?.shape[axis] ?? null;
}

/** A dimension that must be there. */
function needed(tensors: TensorShapes, name: string, axis: number, file: string): number {
  const size = dimension(tensors, name, axis);
  if (size !== null && size > 0) return size;
  const shape = tensors.get(name)?.shape;
  throw new CheckpointError(
    shape
      ? `${tensors.get(name)!.file}: tensor ${name} has shape [${shape.join(', ')}], with no axis ${axis} to take a size from.`
      : `Tensor ${name} is missing from the weights beside ${file}; sizes are taken from its shape.`,
    { file, tensor: name },
  );
}

/** Number of layers: one more than the highest index, all of which must be there. */
function countLayers(tensors: TensorShapes): number {
  let layers = 0;
  for (const name of tensors.keys()) {
    const found = /^backbone\.layers\.(\d+)\./.exec(name);
    if (found) layers = Math.max(layers, Number(found[1]) + 1);
  }
  return layers;
}

/**
 * Groups and state size, of which shapes give only the product: what the file declares decides, and mamba_ssm's default
 * where it fits.
 */
function splitGroups(
  product: number,
  groups: unknown,
  state: unknown,
  file: string,
): { groups: number; state: number } {
  const fail = (what: string, option: string): never => {
    throw new ConfigError(`${file}: ${what}`, { file, option, got: option === 'd_state' ? state : groups, product });
  };
  const divides = (n: unknown): n is number =>
    Number.isSafeInteger(n) && (n as number) > 0 && product % (n as number) === 0;
  const shapes = `The convolution's channels give groups × state size = ${product}`;
  if (groups !== undefined) {
    if (!divides(groups)) return fail(`${shapes}, which ${quote(groups)} groups do not divide.`, 'ngroups');
    if (state !== undefined && state !== product / groups)
      fail(
        `${shapes}; with ${groups} groups the state size is ${product / groups}, but d_state says ${quote(state)}.`,
        'd_state',
      );
    return { groups, state: product / groups };
  }
  if (state !== undefined) {
    if (!divides(state)) return fail(`${shapes}, which a d_state of ${quote(state)} does not divide.`, 'd_state');
    return { groups: product / state, state };
  }
  if (product === 128) return { groups: 1, state: 128 };
  return fail(`${shapes}, and neither ngroups nor d_state is declared. Add one of them to ssm_cfg.`, 'ngroups');
}

/** A size that the file declares and the shapes tell must be the same. */
function agree(file: string, option: string, declared: unknown, derived: number): number {
  if (declared === undefined || declared === null || declared === derived) return derived;
  throw new ConfigError(`${file}: ${option} is ${quote(declared)}, but the weights' shapes say ${derived}.`, {
    file,
    option,
    got: declared,
    expected: derived,
  });
}

/** Bounds of dt, which a config.json may also spell as texts. */
function bounds(file: string, limit: unknown): unknown[] {
  if (Array.isArray(limit) && limit.length === 2) return [...(limit as unknown[])];
  throw new ConfigError(`${file}: dt_limit is ${quote(limit)}; expected two numbers, the lower first.`, {
    file,
    option: 'dt_limit',
    got: limit,
  });
}

/** Rows of the embedding: the vocabulary, rounded up to a multiple. */
function vocabulary(file: string, config: Config, rows: number): number {
  const [size, multiple] = [config.vocab_size, config.pad_vocab_size_multiple ?? 8];
  if (size === undefined || size === null) return rows;
  if (typeof size !== 'number')
    throw new ConfigError(`${file}: vocab_size is ${quote(size)}; expected a number of rows.`, {
      file,
      option: 'vocab_size',
      got: size,
    });
  const padded = typeof multiple === 'number' && multiple > 0 ? Math.ceil(size / multiple) * multiple : size;
  if (rows === size || rows === padded) return rows;
  throw new ConfigError(
    `${file}: vocab_size ${size} in multiples of ${quote(multiple)} makes ${padded} rows, but the embedding has ${rows}.`,
    { file, option: 'vocab_size', got: size, expected: rows },
  );
}

/**
 * The Hugging Face configuration of a state-spaces or Mistral checkpoint.
 * @param format which of the two
 * @param config the file's keys
 * @param tensors shapes, under Hugging Face's names
 * @param file path of the configuration, for messages
 * @throws ConfigError when what is declared contradicts the shapes or cannot be told from them; CheckpointError when a
 *   tensor that tells a size is missing
 */
export function deriveConfig(
  format: 'state-spaces' | 'mistral',
  config: Config,
  tensors: TensorShapes,
  file: string,
): Record<string, unknown> {
  const ssm = (format === 'state-spaces' ? (config.ssm_cfg ?? {}) : {}) as Config;
  const mixer = 'backbone.layers.0.mixer';
  const size = (name: string, axis: number): number => needed(tensors, name, axis, file);
  const layers = agree(
    file,
    format === 'mistral' ? 'n_layers' : 'n_layer',
    config.n_layers ?? config.n_layer,
    countLayers(tensors),
  );
  const hidden = agree(
    file,
    format === 'mistral' ? 'dim' : 'd_model',
    config.dim ?? config.d_model,
    size('backbone.embeddings.weight', 1),
  );
  const inner = size(`${mixer}.out_proj.weight`, 1);
  const decay = tensors.get(`${mixer}.A_log`);
  if (decay && decay.shape.length !== 1)
    refuse(decay.file, `tensor ${mixer}.A_log has shape [${decay.shape.join(', ')}]: it belongs to a Mamba-1 mixer.`, {
      tensor: `${mixer}.A_log`,
    });
  const heads = size(`${mixer}.A_log`, 0);
  const channels = size(`${mixer}.conv1d.weight`, 0);
  if (inner % hidden !== 0 || inner % heads !== 0 || channels <= inner || (channels - inner) % 2 !== 0)
    throw new CheckpointError(
      `${file}: the weights' shapes fit no Mamba-2: hidden size ${hidden}, inner size ${inner}, ${heads} heads, ${channels} convolution channels.`,
      { file, hidden, inner, heads, channels },
    );
  if (dimension(tensors, `${mixer}.D`, 0) === inner && inner !== heads)
    refuse(file, `tensor ${mixer}.D has an entry per channel (D_has_hdim).`, { tensor: `${mixer}.D` });
  // Hugging Face's own converter reads ngroups beside ssm_cfg, so files with it there exist
  const declaredGroups = config.n_groups ?? ssm.ngroups ?? config.ngroups;
  const { groups, state } = splitGroups((channels - inner) / 2, declaredGroups, ssm.d_state, file);
  const kept = (key: keyof typeof MAMBA_SSM): unknown => ssm[key] ?? MAMBA_SSM[key];
  const mistral = format === 'mistral';
  return {
    architectures: ['Mamba2ForCausalLM'],
    // Mistral's tokenizer v3: <unk> 0, <s> 1, </s> 2. GPT-NeoX', which state-spaces uses: <|endoftext|> 0
    bos_token_id: mistral ? 1 : 0,
    chunk_size: kept('chunk_size'),
    conv_kernel: agree(file, 'd_conv', ssm.d_conv, size(`${mixer}.conv1d.weight`, 2)),
    dtype: torchDtypeName(tensors.get(`${mixer}.in_proj.weight`)?.dtype ?? 'F32'),
    eos_token_id: mistral ? 2 : 0,
    expand: agree(file, 'expand', ssm.expand, inner / hidden),
    head_dim: agree(file, 'headdim', ssm.headdim, inner / heads),
    hidden_act: 'silu',
    hidden_size: hidden,
    initializer_range: 0.1,
    layer_norm_epsilon: 1e-5,
    model_type: 'mamba2',
    n_groups: groups,
    num_heads: heads,
    num_hidden_layers: layers,
    pad_token_id: mistral ? 2 : 0,
    rescale_prenorm_residual: false,
    residual_in_fp32: config.residual_in_fp32 ?? true,
    state_size: state,
    tie_word_embeddings: config.tie_embeddings ?? true,
    time_step_floor: kept('dt_init_floor'),
    time_step_limit: bounds(file, kept('dt_limit')),
    time_step_max: kept('dt_max'),
    time_step_min: kept('dt_min'),
    time_step_rank: Math.ceil(hidden / 16),
    use_bias: ssm.bias ?? tensors.has(`${mixer}.in_proj.bias`),
    use_cache: true,
    use_conv_bias: ssm.conv_bias ?? tensors.has(`${mixer}.conv1d.bias`),
    vocab_size: vocabulary(file, config, size('backbone.embeddings.weight', 0)),
  };
}
