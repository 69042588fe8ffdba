/**
 * Kernels of our own inside a compiled function on a GPU, as text of Triton's intermediate language (TTIR), which XLA compiles with
 * its own Triton: the custom call `__gpu$xla.gpu.triton`, through which JAX's Pallas kernels run too. Nothing of the kind exists on CPUs.
 */
import type * as tf from '@tensorflow/tfjs';
import { computeCapability } from '../../runtime/index.js';
import { compilesForGpu, record, symbolic, valueOf } from '../trace/backend.js';
import { callModule } from './call_module.js';
import { dtypeNumber } from '../../runtime/data_types.js';
import { attr } from '../trace/graphdef.js';
import type { Dtype } from '../types.js';

/** Names of element types in TTIR; the type of integers has no sign there. */
export const ELEMENTS: Partial<Record<Dtype, string>> = { float32: 'f32', bfloat16: 'bf16', uint8: 'i8', int32: 'i32' };

/** A kernel: its text, and how it is launched. */
export interface TritonKernel {
  readonly name: string;
  /** The module in TTIR, with one public function `name` over pointers to the inputs and then to the output. */
  readonly text: string;
  /** Programs that are run, each with its own number. */
  readonly grid: number;
  /** Warps of 32 threads in a program. */
  readonly warps: number;
}

/** Type of a tensor in TTIR. */
function tensorType(dims: readonly number[], element: string): string {
  return `tensor<${[...dims, element].join('x')}>`;
}

/** A value in TTIR: its name, dimensions (none for a scalar) and element type. */
export interface TtirValue {
  readonly ref: string;
  readonly dims: readonly number[];
  readonly element: string;
}

const typeOf = ({ dims, element }: TtirValue): string => (dims.length === 0 ? element : tensorType(dims, element));

/**
 * Writes the body of a kernel. Operands of elementwise operations are broadcast as in NumPy.
 * @example
 * const body = new TritonWriter('twice', ['float32', 'float32']);
 * const at = body.range(64);
 * const x = body.load(body.parameters[0]!, at);
 * body.store(body.parameters[1]!, at, body.binary('arith.addf', x, x));
 * const kernel = body.kernel({ grid: 1, warps: 4 });
 */
export class TritonWriter {
  readonly parameters: readonly TtirValue[];
  private readonly lines: string[] = [];
  private count = 0;

  constructor(
    readonly name: string,
    parameters: readonly Dtype[],
  ) {
    this.parameters = parameters.map((dtype, i) => ({
      ref: `%p${i}`,
      dims: [],
      element: `!tt.ptr<${ELEMENTS[dtype]}>`,
    }));
  }

  private emit(op: string, dims: readonly number[], element: string): TtirValue {
    const ref = `%v${this.count++}`;
    this.lines.push(`    ${ref} = ${op}`);
    return { ref, dims, element };
  }

  /** Number of the program. */
  program(): TtirValue {
    return this.emit('tt.get_program_id x : i32', [], 'i32');
  }

  constant(value: number, element: string): TtirValue {
    const text = element.startsWith('i') ? String(value) : floatText(value);
    return this.emit(`arith.constant ${text} : ${element}`, [], element);
  }

  /** 0, 1, … size-1 along axis `axis` of a tensor of rank `rank`. */
  range(size: number, axis = 0, rank = 1): TtirValue {
    let value = this.emit(
      `tt.make_range {end = ${size} : i32, start = 0 : i32} : ${tensorType([size], 'i32')}`,
      [size],
      'i32',
    );
    for (let i = 0; i < rank; i++) if (i !== axis) value = this.expand(value, i);
    return value;
  }

  expand(x: TtirValue, axis: number): TtirValue {
    const dims = [...x.dims.slice(0, axis), 1, ...x.dims.slice(axis)];
    return this.emit(
      `tt.expand_dims ${x.ref} {axis = ${axis} : i32} : ${typeOf(x)} -> ${tensorType(dims, x.element)}`,
      dims,
      x.element,
    );
  }

  broadcast(x: TtirValue, dims: readonly number[]): TtirValue {
    if (x.dims.join() === dims.join()) return x;
    const op = x.dims.length === 0 ? 'tt.splat' : 'tt.broadcast';
    return this.emit(`${op} ${x.ref} : ${typeOf(x)} -> ${tensorType(dims, x.element)}`, dims, x.element);
  }

  private together(a: TtirValue, b: TtirValue): [TtirValue, TtirValue, readonly number[]] {
    const wide = a.dims.length >= b.dims.length ? a.dims : b.dims;
    const dims = wide.map((d, i) => Math.max(d, a.dims[i] ?? 1, b.dims[i] ?? 1));
    return [this.broadcast(a, dims), this.broadcast(b, dims), dims];
  }

  /** An elementwise operation such as 'arith.addf'; a number stands for a constant of the other operand's type. */
  binary(op: string, left: TtirValue, right: TtirValue | number): TtirValue {
    const other = typeof right === 'number' ? this.constant(right, left.element) : right;
    const [a, b, dims] = this.together(left, other);
    return this.emit(`${op} ${a.ref}, ${b.ref} : ${typeOf(a)}`, dims, left.element);
  }

  unary(op: string, x: TtirValue): TtirValue {
    return this.emit(`${op} ${x.ref} : ${typeOf(x)}`, x.dims, x.element);
  }

  convert(op: string, x: TtirValue, element: string): TtirValue {
    const to = x.dims.length === 0 ? element : tensorType(x.dims, element);
    const arrow = op.startsWith('tt.') ? '->' : 'to';
    return this.emit(`${op} ${x.ref} : ${typeOf(x)} ${arrow} ${to}`, x.dims, element);
  }

  /** Sum over one axis, which goes away. */
  sum(x: TtirValue, axis: number): TtirValue {
    const dims = x.dims.filter((_, i) => i !== axis);
    const [a, b, s] = [0, 1, 2].map(() => `%v${this.count++}`);
    const body = `^bb0(${a}: f32, ${b}: f32): ${s} = arith.addf ${a}, ${b} : f32 tt.reduce.return ${s} : f32`;
    const result = dims.length === 0 ? 'f32' : tensorType(dims, 'f32');
    return this.emit(
      `"tt.reduce"(${x.ref}) <{axis = ${axis} : i32}> ({ ${body} }) : (${typeOf(x)}) -> ${result}`,
      dims,
      'f32',
    );
  }

  private at(pointer: TtirValue, offsets: TtirValue): TtirValue {
    const base = this.broadcast(pointer, offsets.dims);
    return this.emit(
      `tt.addptr ${base.ref}, ${offsets.ref} : ${typeOf(base)}, ${typeOf(offsets)}`,
      offsets.dims,
      pointer.element,
    );
  }

  /** Elements at offsets; where `mask` is given and false, nothing is read and the value is any. */
  load(pointer: TtirValue, offsets: TtirValue, mask?: TtirValue): TtirValue {
    if (offsets.dims.length === 0)
      return this.emit(
        `tt.load ${this.at(pointer, offsets).ref} : ${pointer.element}`,
        [],
        pointer.element.slice('!tt.ptr<'.length, -1),
      );
    const from = this.at(pointer, offsets);
    const guard = mask ? `, ${this.broadcast(mask, offsets.dims).ref}` : '';
    return this.emit(
      `tt.load ${from.ref}${guard} : ${typeOf(from)}`,
      from.dims,
      pointer.element.slice('!tt.ptr<'.length, -1),
    );
  }

  store(pointer: TtirValue, offsets: TtirValue, value: TtirValue, mask?: TtirValue): void {
    const to = this.at(pointer, offsets);
    this.lines.push(`    tt.store ${to.ref}, ${value.ref}${mask ? `, ${mask.ref}` : ''} : ${typeOf(to)}`);
  }

  /** i1 tensor: where the comparison holds, such as 'arith.cmpi slt' or 'arith.cmpf oeq' */
  compare(op: string, a: TtirValue, b: number): TtirValue {
    const [x, y, dims] = this.together(a, this.constant(b, a.element));
    return this.emit(`${op}, ${x.ref}, ${y.ref} : ${typeOf(x)}`, dims, 'i1');
  }

  reshape(x: TtirValue, dims: readonly number[]): TtirValue {
    if (x.dims.join() === dims.join()) return x;
    return this.emit(`tt.reshape ${x.ref} : ${typeOf(x)} -> ${tensorType(dims, x.element)}`, dims, x.element);
  }

  /** a where the condition holds, else b. */
  select(condition: TtirValue, a: TtirValue, b: TtirValue): TtirValue {
    const [x, y, dims] = this.together(a, b);
    const c = this.broadcast(condition, dims);
    return this.emit(`arith.select ${c.ref}, ${x.ref}, ${y.ref} : ${typeOf(c)}, ${typeOf(x)}`, dims, x.element);
  }

  /** log(1 + exp(x)), exact also where it is small. */
  softplus(x: TtirValue): TtirValue {
    const small = this.unary('math.exp', this.binary('arith.mulf', this.unary('math.absf', x), -1));
    const one = this.binary('arith.addf', small, 1); // rounded: log(one) is that of another number, whose error one - 1 shares
    const ratio = this.binary('arith.divf', small, this.binary('arith.addf', one, -1));
    const log = this.binary('arith.mulf', this.unary('math.log', one), ratio);
    const exact = this.select(this.compare('arith.cmpf oeq', one, 1), small, log);
    return this.binary('arith.addf', this.binary('arith.maximumf', x, 0), exact);
  }

  /** Runs `body` for 0, step, 2·step, … below `end`; written out when it runs once. */
  repeat(end: number, step: number, body: (at: TtirValue) => void): void {
    if (end <= step) return body(this.constant(0, 'i32'));
    const [from, to, by] = [0, end, step].map((n) => this.constant(n, 'i32').ref);
    const at = `%i${this.count++}`;
    this.lines.push(`    scf.for ${at} = ${from} to ${to} step ${by} : i32 {`);
    body({ ref: at, dims: [], element: 'i32' });
    this.lines.push('    }');
  }

  /** Runs `body` where the condition, a scalar, holds, else `other`. What they work out is not used outside. */
  when(condition: TtirValue, body: () => void, other: () => void): void {
    this.lines.push(`    scf.if ${condition.ref} {`);
    body();
    this.lines.push('    } else {');
    other();
    this.lines.push('    }');
  }

  kernel(launch: { grid: number; warps: number }): TritonKernel {
    const parameters = this.parameters.map((p) => `${p.ref}: ${p.element} {tt.divisibility = 16 : i32}`).join(', ');
    const text = [
      'module {',
      `  tt.func public @${this.name}(${parameters}) attributes {noinline = false} {`,
      ...this.lines,
      '    tt.return',
      '  }',
      '}',
      '',
    ];
    return { name: this.name, text: text.join('\n'), ...launch };
  }
}

/** A float constant as MLIR reads it. */
function floatText(value: number): string {
  const text = value.toExponential();
  return text.includes('.') ? text : text.replace('e', '.0e');
}

/** What runs a kernel in place of a GPU: see runTritonAll. */
export type KernelRunner = (
  kernel: TritonKernel,
  inputs: readonly tf.Tensor[],
  results: readonly { shape: readonly number[]; dtype: Dtype }[],
  aliases: ReadonlyMap<number, number>,
) => tf.Tensor[];

let runner: KernelRunner | null = null;

/** Code whose kernels of ours are run by `run`, at once: what is made of their results can so be checked without a GPU. */
export function withKernelRunner<T>(run: KernelRunner, code: () => T): T {
  runner = run;
  try {
    return code();
  } finally {
    runner = null;
  }
}

/** XLA compiles Triton's language for compute capability 8.0 and later, and our kernels in PTX use instructions of these cards. */
export function takesTriton(capability: number): boolean {
  return capability === 0 || capability >= 80;
}

/**
 * Whether kernels of ours run where the traced code will: on a GPU that takes them, in a program of XLA. TFJS_MAMBA2_TRITON=0
 * leaves them out.
 */
export function tritonRuns(): boolean {
  if (runner) return true;
  return compilesForGpu() && process.env['TFJS_MAMBA2_TRITON'] !== '0' && takesTriton(computeCapability());
}

/** A string attribute of MLIR. */
const quoted = (text: string): string =>
  `"${text.replace(/\\/g, '\\5C').replace(/"/g, '\\22').replace(/\n/g, '\\0A')}"`;

/**
 * Calls a kernel of ours. Traced code for a GPU alone.
 * @param inputs what the first parameters point to @param shape, dtype of the output, the last parameter
 */
export function runTriton(
  kernel: TritonKernel,
  inputs: readonly tf.Tensor[],
  shape: readonly number[],
  dtype: Dtype = 'float32',
): tf.Tensor {
  return runTritonAll(kernel, inputs, [shape], dtype)[0]!;
}

/**
 * As runTriton, with several outputs, the last parameters in order.
 * @param dtypes of all outputs, or of each @param aliases of outputs that take an input's memory, the number of that input: the kernel may
 * write over what it reads there, and the parameters of both point to the same place. Input and output are of one type. XLA copies the
 * input first where something else still needs it.
 */
export function runTritonAll(
  kernel: TritonKernel,
  inputs: readonly tf.Tensor[],
  shapes: readonly (readonly number[])[],
  dtypes: Dtype | readonly Dtype[] = 'float32',
  aliases: ReadonlyMap<number, number> = new Map(),
): tf.Tensor[] {
  const int = (n: number): string => `${n} : i32`;
  const config = `{name = ${quoted(kernel.name)}, ir = ${quoted(kernel.text)}, grid_x = ${int(kernel.grid)}, grid_y = ${int(1)}, grid_z = ${int(1)}, num_stages = ${int(1)}, num_warps = ${int(kernel.warps)}}`;
  const types = shapes.map((_, i) => (typeof dtypes === 'string' ? dtypes : dtypes[i]!));
  const results = shapes.map((shape, i) => ({ shape, dtype: types[i]! }));
  if (runner) return runner(kernel, inputs, results, aliases);
  const values = inputs.map(valueOf);
  const target = '__gpu$xla.gpu.triton';
  if (aliases.size > 0) {
    return callModule({ target, config, results, aliases }, values).map(symbolic);
  }
  const attrs = {
    call_target_name: attr.string(target),
    backend_config: attr.string(config),
    has_side_effect: attr.bool(false),
    result_dtypes: attr.types(types.map(dtypeNumber)),
    result_shapes: attr.shapes(shapes),
  };
  return record('XlaCustomCallV2', attrs, values).map(symbolic);
}
