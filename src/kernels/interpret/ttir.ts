/**
 * Runs a kernel in Triton's intermediate language, one program after another, in plain loops: what a kernel means can then be
 * checked without a GPU. Knows the operations that TritonWriter writes; float arithmetic rounds to float32. Values that a mask leaves out
 * are not numbers; reads and writes beyond a buffer are errors.
 */
import { toBfloat16 } from '../../base/stored_dtypes.js';
import { floatOf } from './bits.js';
import { InterpreterError } from './errors.js';

interface Value {
  dims: number[];
  data: number[];
  /** Buffer that the elements point into. */
  buffer?: number;
}

/** A buffer for each parameter; bfloat16 is held as float32. */
export type Memory = (Float32Array | Int32Array)[];

const size = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);

/** Dimensions of the last type in a line, none for a scalar. */
function dimsOf(type: string): number[] {
  const match = /tensor<((?:\d+x)+)/.exec(type);
  return match ? match[1]!.split('x').filter(Boolean).map(Number) : [];
}

function broadcast(x: Value, dims: number[]): Value {
  const data = Array.from({ length: size(dims) }, (_, flat) => {
    let rest = flat;
    let at = 0;
    let stride = 1;
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      const index = rest % dims[axis]!;
      rest = Math.floor(rest / dims[axis]!);
      const own = x.dims[axis] ?? 1;
      if (own > 1) at += index * stride;
      stride *= own;
    }
    return x.data[at]!;
  });
  return { ...x, dims, data };
}

function reduce(x: Value, axis: number): Value {
  const [n, after] = [x.dims[axis]!, size(x.dims.slice(axis + 1))];
  const dims = x.dims.filter((_, i) => i !== axis);
  const data = new Array<number>(size(dims)).fill(0);
  x.data.forEach((v, flat) => {
    const to = Math.floor(flat / (n * after)) * after + (flat % after);
    data[to] = Math.fround(data[to]! + v);
  });
  return { dims, data };
}

const BINARY: Record<string, (a: number, b: number) => number> = {
  'arith.addi': (a, b) => (a + b) | 0,
  'arith.subi': (a, b) => (a - b) | 0,
  'arith.muli': (a, b) => Math.imul(a, b),
  'arith.divsi': (a, b) => Math.trunc(a / b),
  'arith.andi': (a, b) => a & b,
  'arith.ori': (a, b) => a | b,
  'arith.minsi': (a, b) => Math.min(a, b),
  'arith.maxsi': (a, b) => Math.max(a, b),
  'arith.shrui': (a, b) => (a >>> b) | 0,
  'arith.cmpi slt': (a, b) => Number(a < b),
  'arith.cmpi sge': (a, b) => Number(a >= b),
  'arith.cmpf oeq': (a, b) => Number(a === b),
  'arith.maximumf': (a, b) => Math.max(a, b),
  'arith.minimumf': (a, b) => Math.min(a, b),
  'arith.addf': (a, b) => Math.fround(a + b),
  'arith.subf': (a, b) => Math.fround(a - b),
  'arith.mulf': (a, b) => Math.fround(a * b),
  'arith.divf': (a, b) => Math.fround(a / b),
};

const UNARY: Record<string, (a: number) => number> = {
  'math.exp': (a) => Math.fround(Math.exp(a)),
  'math.rsqrt': (a) => Math.fround(1 / Math.sqrt(a)),
  'arith.extf': (a) => a,
  'arith.truncf': toBfloat16,
  'math.log': (a) => Math.fround(Math.log(a)),
  'math.absf': (a) => Math.abs(a),
  'tt.bitcast': floatOf,
};

const outside = (what: 'read' | 'write', at: number, size: number, parameter: number): InterpreterError =>
  new InterpreterError('ttir', `${what} at ${at} of ${size} (parameter ${parameter})`, { at, size, parameter });

/** One program of a kernel. */
class Run {
  private readonly values = new Map<string, Value>();

  constructor(
    private readonly lines: readonly string[],
    private readonly memory: Memory,
    private readonly program: number,
    parameters: readonly string[],
  ) {
    parameters.forEach((name, buffer) => this.values.set(name, { dims: [], data: [0], buffer }));
  }

  private get(name: string): Value {
    const value = this.values.get(name);
    if (!value) throw new InterpreterError('ttir', `${name} is not defined`, { value: name });
    return value;
  }

  private evaluate(op: string): Value {
    const refs = [...op.matchAll(/%\w+/g)].map((m) => m[0]);
    const name = op.startsWith('arith.cmp') ? op.split(',')[0]! : op.split(/[ (]/)[0]!;
    const dims = dimsOf(op.slice(Math.max(0, op.lastIndexOf('tensor<'))));
    if (BINARY[name]) {
      const [a, b] = [this.get(refs[0]!), this.get(refs[1]!)];
      if (a.dims.join() !== b.dims.join())
        throw new InterpreterError('ttir', `dimensions differ in ${op}`, { instruction: op });
      return { dims: a.dims, data: a.data.map((v, i) => BINARY[name]!(v, b.data[i]!)) };
    }
    if (UNARY[name]) {
      const a = this.get(refs[0]!);
      return { dims: a.dims, data: a.data.map(UNARY[name]) };
    }
    switch (name) {
      case 'tt.get_program_id':
        return { dims: [], data: [this.program] };
      case 'arith.constant':
        return { dims: [], data: [Number(op.split(' ')[1])] };
      case 'tt.make_range':
        return { dims, data: Array.from({ length: dims[0]! }, (_, i) => i) };
      case 'tt.splat':
      case 'tt.broadcast':
        return broadcast(this.get(refs[0]!), dims);
      case 'arith.select': {
        const [condition, a, b] = refs.map((ref) => this.get(ref)) as [Value, Value, Value];
        return { dims: a.dims, data: a.data.map((v, i) => (condition.data[i] ? v : b.data[i]!)) };
      }
      case 'tt.reshape':
      case 'tt.expand_dims':
        return { ...this.get(refs[0]!), dims };
      case '"tt.reduce"':
        return reduce(this.get(refs[0]!), Number(/axis = (\d+)/.exec(op)![1]));
      case 'tt.addptr': {
        const [base, offsets] = [this.get(refs[0]!), this.get(refs[1]!)];
        return { ...base, data: base.data.map((v, i) => v + offsets.data[i]!) };
      }
      case 'tt.load':
        return this.load(this.get(refs[0]!), refs[1] ? this.get(refs[1]) : null);
      default:
        throw new InterpreterError('ttir', `unknown operation ${op}`, { instruction: op });
    }
  }

  private load(from: Value, mask: Value | null): Value {
    const buffer = this.memory[from.buffer!]!;
    const data = from.data.map((at, i) => {
      if (mask && !mask.data[i]) return NaN;
      if (at < 0 || at >= buffer.length) throw outside('read', at, buffer.length, from.buffer!);
      return buffer[at]!;
    });
    return { dims: from.dims, data };
  }

  private store(line: string): void {
    const refs = [...line.matchAll(/%\w+/g)].map((m) => this.get(m[0]));
    const [to, value, mask] = refs as [Value, Value, Value | undefined];
    to.data.forEach((at, i) => {
      if (mask && !mask.data[i]) return;
      const buffer = this.memory[to.buffer!]!;
      if (at < 0 || at >= buffer.length) throw outside('write', at, buffer.length, to.buffer!);
      buffer[at] = value.data[i]!;
    });
  }

  /** Runs lines from..to. */
  run(from: number, to: number): void {
    for (let i = from; i < to; i++) {
      const line = this.lines[i]!;
      if (line.startsWith('tt.store')) {
        this.store(line);
      } else if (line.startsWith('scf.for')) {
        i = this.loop(i);
      } else if (line.startsWith('scf.if')) {
        i = this.branch(i);
      } else {
        const [, name, op] = /^(%\w+) = (.*)$/.exec(line)!;
        this.values.set(name!, this.evaluate(op!));
      }
    }
  }

  private branch(at: number): number {
    const holds = this.get(/%\w+/.exec(this.lines[at]!)![0]).data[0];
    const other = this.lines.indexOf('} else {', at);
    const close = this.lines.indexOf('}', other);
    if (holds) this.run(at + 1, other);
    else this.run(other + 1, close);
    return close;
  }

  private loop(at: number): number {
    const [, counter, from, end, step] = /^scf\.for (%\w+) = (%\w+) to (%\w+) step (%\w+)/.exec(this.lines[at]!)!;
    const close = this.lines.indexOf('}', at);
    const [low, high, by] = [from!, end!, step!].map((name) => this.get(name).data[0]!) as [number, number, number];
    for (let i = low; i < high; i += by) {
      this.values.set(counter!, { dims: [], data: [i] });
      this.run(at + 1, close);
    }
    return close;
  }
}

/**
 * Runs all programs of a kernel, one after another.
 * @param memory results are written there
 * @throws InterpreterError where the kernel does what it must not
 */
export function runTtir(kernel: { text: string; grid: number }, memory: Memory): void {
  const lines = kernel.text.split('\n').map((line) => line.trim());
  const head = lines.findIndex((line) => line.startsWith('tt.func'));
  const parameters = [...lines[head]!.matchAll(/(%p\d+):/g)].map((m) => m[1]!);
  const end = lines.indexOf('tt.return');
  for (let program = 0; program < kernel.grid; program++)
    new Run(lines, memory, program, parameters).run(head + 1, end);
}
