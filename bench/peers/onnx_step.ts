/**
 * One step of Mamba-2 as an ONNX graph: token and states in; the next token, scores and states out. Operators are those that ONNX Runtime has for such models on
 * WebGPU (com.microsoft: SkipSimplifiedLayerNormalization, MatMulNBits, CausalConvWithState, LinearAttention, QuickGelu), so that a step is as few dispatches as it can make of it.
 * Letters as in docs/specification.md.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { MessageWriter } from '../../src/base/proto.js';
import { decodeFloat32, encodeFloat32 } from '../../src/base/stored_dtypes.js';
import { parseConfigJson } from '../../src/checkpoints/config_json.js';
import { SafetensorsFile } from '../../src/checkpoints/safetensors.js';
import { Mamba2Config } from '../../src/models/mamba2/config.js';

/** Types of numbers, and how matrices are stored: as those, or in four bits with a scale per block. */
export interface OnnxForm {
  readonly numbers: 'float32' | 'float16';
  /** Weights of a block; 0 keeps matrices as they are. */
  readonly block: number;
  /** accuracy_level of MatMulNBits: 4 lets it round what meets the matrix to int8. */
  readonly accuracy: number;
}

/** A state that goes from step to step. */
export interface OnnxState {
  readonly name: string;
  readonly shape: readonly number[];
}

const TYPES = { float32: 1, uint8: 2, int64: 7, float16: 10 } as const;
type Type = keyof typeof TYPES;

class Graph {
  private readonly message = new MessageWriter();
  private count = 0;

  constructor(readonly numbers: 'float32' | 'float16') {}

  /** A node with one output or several; gives their names. */
  nodes(
    op: string,
    inputs: readonly string[],
    outputs: number | readonly string[],
    attributes: Readonly<Record<string, number | string | readonly number[]>> = {},
  ): string[] {
    const names = typeof outputs === 'number' ? Array.from({ length: outputs }, () => `v${++this.count}`) : outputs;
    const [name, domain] = op.split('@') as [string, string | undefined];
    const node = new MessageWriter();
    for (const input of inputs) node.bytes(1, input);
    for (const output of names) node.bytes(2, output);
    node.bytes(3, `n${++this.count}`).bytes(4, name);
    for (const [key, value] of Object.entries(attributes)) {
      const attribute = new MessageWriter().bytes(1, key);
      if (typeof value === 'string') attribute.bytes(4, value).int(20, 3);
      else if (typeof value !== 'number') for (const each of value) attribute.int(8, each);
      else if (key === 'epsilon' || key === 'alpha' || key === 'scale') attribute.float(2, value).int(20, 1);
      else attribute.int(3, value).int(20, 2);
      if (typeof value === 'object') attribute.int(20, 7);
      node.bytes(5, attribute);
    }
    if (domain) node.bytes(7, domain);
    this.message.bytes(1, node);
    return [...names];
  }

  node(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, number | string | readonly number[]>> = {},
  ): string {
    return this.nodes(op, inputs, 1, attributes)[0]!;
  }

  raw(dims: readonly number[], type: Type, data: Uint8Array): string {
    const name = `w${++this.count}`;
    const tensor = new MessageWriter();
    for (const size of dims) tensor.int(1, size);
    this.message.bytes(5, tensor.int(2, TYPES[type]).bytes(8, name).bytes(9, data));
    return name;
  }

  values(dims: readonly number[], values: Float32Array): string {
    return this.raw(dims, this.numbers, encodeFloat32(values, this.numbers === 'float16' ? 'F16' : 'F32'));
  }

  sizes(values: readonly number[]): string {
    return this.raw([values.length], 'int64', new Uint8Array(BigInt64Array.from(values, BigInt).buffer));
  }

  private value(field: 11 | 12, name: string, shape: readonly number[], type: Type): void {
    const dims = new MessageWriter();
    for (const size of shape) dims.bytes(1, new MessageWriter().int(1, size));
    const tensor = new MessageWriter().int(1, TYPES[type]).bytes(2, dims);
    this.message.bytes(field, new MessageWriter().bytes(1, name).bytes(2, new MessageWriter().bytes(1, tensor)));
  }

  input(name: string, shape: readonly number[], type: Type): string {
    this.value(11, name, shape, type);
    return name;
  }

  output(name: string, shape: readonly number[], type: Type): void {
    this.value(12, name, shape, type);
  }

  write(file: string): void {
    const model = new MessageWriter().int(1, 10).bytes(2, 'tfjs-mamba2').bytes(7, this.message.bytes(2, 'step'));
    for (const [domain, version] of [
      ['', 21],
      ['com.microsoft', 1],
    ] as const)
      model.bytes(8, new MessageWriter().bytes(1, domain).int(2, version));
    fs.writeFileSync(file, model.finish());
  }
}

/** [rows, columns] to [columns, rows] */
function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j]!;
  return out;
}

/** Codes of four bits with a scale per block, zero at 8: two codes a byte, the lower half first. */
function quantized(values: Float32Array, block: number): { codes: Uint8Array; scales: Float32Array } {
  const codes = new Uint8Array(values.length / 2);
  const scales = new Float32Array(values.length / block);
  for (let k = 0; k < scales.length; k++) {
    let extreme = 0;
    for (let i = k * block; i < (k + 1) * block; i++)
      if (Math.abs(values[i]!) > Math.abs(extreme)) extreme = values[i]!;
    const scale = (scales[k] = extreme / -8);
    for (let i = k * block; i < (k + 1) * block; i++) {
      const code = scale === 0 ? 8 : Math.max(0, Math.min(15, Math.round(values[i]! / scale) + 8));
      codes[i >> 1] = codes[i >> 1]! | (i % 2 === 0 ? code : code << 4);
    }
  }
  return { codes, scales };
}

/**
 * Writes the step of a checkpoint.
 * @returns its states, which are called past_NAME and present_NAME
 */
export async function writeOnnxStep(
  dir: string,
  file: string,
  { numbers, block, accuracy }: OnnxForm,
): Promise<OnnxState[]> {
  const config = Mamba2Config.from_dict(parseConfigJson(fs.readFileSync(path.join(dir, 'config.json'), 'utf8')));
  const {
    hidden_size: D,
    num_heads: H,
    head_dim: P,
    n_groups: G,
    state_size: N,
    conv_kernel: K,
    vocab_size: V,
  } = config;
  const inner = H * P;
  const channels = inner + 2 * G * N;
  const epsilon = config.layer_norm_epsilon;
  if (G !== 1) throw new Error(`the graph is written for one group; the model has ${G}`);
  const weights = await SafetensorsFile.open(path.join(dir, 'model.safetensors'));
  const read = async (name: string): Promise<Float32Array> => {
    const found = weights.entries.get(name);
    if (!found) throw new Error(`${dir} holds no tensor ${name}`);
    return decodeFloat32(await weights.read(name), found.dtype);
  };
  const graph = new Graph(numbers);
  const states: OnnxState[] = [];

  /** x @ Wᵀ, of a matrix [out, inner]. */
  const product = (x: string, matrix: Float32Array, out: number, inner: number): string => {
    if (block === 0) return graph.node('MatMul', [x, graph.values([inner, out], transposed(matrix, out, inner))]);
    const { codes, scales } = quantized(matrix, block);
    const blocks = inner / block;
    const inputs = [x, graph.raw([out, blocks, block / 2], 'uint8', codes), graph.values([out * blocks], scales)];
    return graph.node('MatMulNBits@com.microsoft', inputs, {
      K: inner,
      N: out,
      bits: 4,
      block_size: block,
      accuracy_level: accuracy,
    });
  };
  const state = (name: string, shape: readonly number[]): string => {
    states.push({ name, shape });
    graph.output(`present_${name}`, shape, numbers);
    return graph.input(`past_${name}`, shape, numbers);
  };
  const sizes = {
    parts: graph.sizes([inner, channels, H]),
    channels: graph.sizes([inner, G * N, G * N]),
    column: graph.sizes([1, channels, 1]),
    row: graph.sizes([1, 1, channels]),
    heads: graph.sizes([1, 1, H, P]),
    dt: graph.sizes([1, 1, H, 1]),
    flat: graph.sizes([1, 1, inner]),
    repeated: graph.sizes([1, 1, H * N]),
    times: graph.sizes([1, 1, H]),
  };

  const embedding = await read('backbone.embeddings.weight');
  const token = graph.input('token', [1, 1], 'int64');
  let residual = graph.node('Gather', [graph.values([V, D], embedding), token], { axis: 0 }); // [1, 1, D]
  let added: string | null = null;
  for (let i = 0; i < config.num_hidden_layers; i++) {
    const of = (name: string): Promise<Float32Array> => read(`backbone.layers.${i}.${name}`);
    const gamma = graph.values([D], await of('norm.weight'));
    let normed: string;
    if (added === null) normed = graph.node('SimplifiedLayerNormalization', [residual, gamma], { axis: -1, epsilon });
    else {
      const out = graph.nodes(
        'SkipSimplifiedLayerNormalization@com.microsoft',
        [residual, added, gamma],
        [`h${i}`, '', '', `r${i}`],
        { epsilon },
      );
      [normed, residual] = [out[0]!, out[3]!];
    }
    const projected = product(normed, await of('mixer.in_proj.weight'), inner + channels + H, D);
    const [z, xBC, dt] = graph.nodes('Split', [projected, sizes.parts], 3, { axis: 2 }) as [string, string, string];
    const [convolved] = graph.nodes(
      'CausalConvWithState@com.microsoft',
      [
        graph.node('Reshape', [xBC, sizes.column]),
        graph.values([channels, 1, K], await of('mixer.conv1d.weight')),
        graph.values([channels], await of('mixer.conv1d.bias')),
        state(`conv${i}`, [1, channels, K - 1]),
      ],
      [`c${i}`, `present_conv${i}`],
      { activation: 'silu' },
    ) as [string];
    const [x, B, C] = graph.nodes('Split', [graph.node('Reshape', [convolved, sizes.row]), sizes.channels], 3, {
      axis: 2,
    }) as [string, string, string];
    const steps = graph.node('Softplus', [graph.node('Add', [dt, graph.values([H], await of('mixer.dt_bias'))])]); // [1, 1, H]
    const decay = graph.node('Mul', [
      steps,
      graph.values(
        [H],
        (await of('mixer.A_log')).map((a) => -Math.exp(a)),
      ),
    ]);
    const heads = graph.node('Reshape', [x, sizes.heads]);
    const fed = graph.node('Mul', [heads, graph.node('Reshape', [steps, sizes.dt])]);
    const [read_] = graph.nodes(
      'LinearAttention@com.microsoft',
      [
        graph.node('Tile', [C, sizes.times]),
        graph.node('Tile', [B, sizes.times]),
        graph.node('Reshape', [fed, sizes.flat]),
        state(`ssm${i}`, [1, H, N, P]),
        decay,
      ],
      [`y${i}`, `present_ssm${i}`],
      { q_num_heads: H, kv_num_heads: H, update_rule: 'gated', scale: 1 },
    ) as [string];
    const skipped = graph.node('Mul', [heads, graph.values([H, 1], await of('mixer.D'))]);
    const y = graph.node('Add', [read_, graph.node('Reshape', [skipped, sizes.flat])]);
    const gated = graph.node('Mul', [y, graph.node('QuickGelu@com.microsoft', [z], { alpha: 1 })]);
    const normedInner = graph.node(
      'SimplifiedLayerNormalization',
      [gated, graph.values([inner], await of('mixer.norm.weight'))],
      { axis: -1, epsilon },
    );
    added = product(normedInner, await of('mixer.out_proj.weight'), D, inner);
  }
  const gamma = graph.values([D], await read('backbone.norm_f.weight'));
  const last = graph.nodes('SkipSimplifiedLayerNormalization@com.microsoft', [residual, added!, gamma], 1, {
    epsilon,
  })[0]!;
  const head = config.tie_word_embeddings ? embedding : await read('lm_head.weight');
  const logits = product(last, head, V, D);
  graph.nodes('ArgMax', [logits], ['next'], { axis: 2, keepdims: 0 }); // [1, 1]
  graph.nodes('Identity', [logits], ['logits']);
  graph.output('next', [1, 1], 'int64');
  graph.output('logits', [1, 1, V], numbers);
  graph.write(file);
  await weights.close();
  return states;
}
