/**
 * Kernels of our own as PTX, NVIDIA's assembly for any card, where the compiler of Triton's language makes slower code than the card can
 * run. A kernel is one block of inline assembly in an otherwise empty Triton kernel: so it is a kernel of XLA's like any other, part of
 * its CUDA graphs, while the call for ready PTX (`__gpu$xla.gpu.ptx`) would break them.
 */
import { ELEMENTS, type TritonKernel } from './triton.js';
import type { Dtype } from '../types.js';

/** r: 32 bits, f: float32, d: 64 bits, p: a condition. */
export type RegisterKind = 'r' | 'f' | 'd' | 'p';

const DECLARED: Record<RegisterKind, string> = { r: 'b32', f: 'f32', d: 'b64', p: 'pred' };

/** A number as an operand of float32, by its bits: exact. */
function floatBits(value: number): string {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  return `0f${view.getUint32(0).toString(16).padStart(8, '0').toUpperCase()}`;
}

/** Reads 16 bytes of a matrix, which no other block reads and nobody again. */
export const READ_ONCE = 'ld.global.nc.L1::no_allocate.v4.b32';

/** Shared memory of a kernel that is declared in its text, at most. */
export const SHARED_BYTES = 48 * 1024;

/**
 * Writes the body of a kernel, of threads that are `32 * warps` in a block. Registers are named by their kind and a number.
 * @example
 * const k = new PtxWriter('twice', ['float32', 'float32'], 1);
 * const at = k.address(k.pointer(0), k.thread, 4);
 * const x = k.set('f', 'ld.global.f32', `[${at}]`);
 * k.run('st.global.f32', `[${k.address(k.pointer(1), k.thread, 4)}]`, k.set('f', 'add.f32', x, x));
 * const kernel = k.kernel(1);
 */
export class PtxWriter {
  private readonly counts: Record<RegisterKind, number> = { r: 0, f: 0, d: 0, p: 0 };
  private readonly lines: string[] = [];
  private readonly shared: string[] = [];
  private labels = 0;
  private guard = '';
  /** Number of the thread, of its lane in a warp, of the warp, and of the block. */
  readonly thread: string;
  readonly lane: string;
  readonly warp: string;
  readonly block: string;

  constructor(
    readonly name: string,
    readonly parameters: readonly Dtype[],
    readonly warps: number,
  ) {
    this.thread = this.set('r', 'mov.u32', '%tid.x');
    this.block = this.set('r', 'mov.u32', '%ctaid.x');
    this.lane = this.int('and.b32', this.thread, 31);
    this.warp = this.int('shr.u32', this.thread, 5);
  }

  register(kind: RegisterKind): string {
    return `${kind}${this.counts[kind]++}`;
  }

  registers(kind: RegisterKind, count: number): string[] {
    return Array.from({ length: count }, () => this.register(kind));
  }

  /** An instruction without a result, or into registers that there are. */
  run(op: string, ...operands: (string | number)[]): void {
    const odd = operands.find((x) => typeof x === 'number' && !Number.isInteger(x));
    if (odd !== undefined) throw new Error(`PtxWriter.run: ${op} has an operand ${odd}, expected whole numbers`);
    this.lines.push(`${this.guard}${op} ${operands.join(', ')};`);
  }

  /** An instruction into a new register. */
  set(kind: RegisterKind, op: string, ...operands: (string | number)[]): string {
    const to = this.register(kind);
    this.run(op, to, ...operands);
    return to;
  }

  int(op: string, ...operands: (string | number)[]): string {
    return this.set('r', op, ...operands);
  }

  /** An instruction of float32; numbers among the operands are written exactly. */
  float(op: string, ...operands: (string | number)[]): string {
    return this.set('f', op, ...operands.map((x) => (typeof x === 'number' ? floatBits(x) : x)));
  }

  /** A condition, such as 'lt.u32'. */
  compare(op: string, a: string | number, b: string | number): string {
    return this.set('p', `setp.${op}`, a, b);
  }

  /** Instructions of `body` take place where the condition holds. */
  when(condition: string | null, body: () => void): void {
    const before = this.guard;
    if (before) throw new Error('PtxWriter.when: conditions do not nest; join them with and.pred');
    this.guard = condition === null ? '' : `@${condition} `;
    body();
    this.guard = before;
  }

  /** Repeats `body` while what it returns holds, the same for all threads of a warp. */
  repeat(body: () => string): void {
    const label = `again${this.labels++}`;
    this.lines.push(`${label}:`);
    const condition = body();
    this.lines.push(`@${condition} bra.uni ${label};`);
  }

  /** Leaves `body` out where the condition holds, the same for all threads of a warp. */
  unless(condition: string, body: () => void): void {
    const label = `past${this.labels++}`;
    this.lines.push(`@${condition} bra.uni ${label};`);
    body();
    this.lines.push(`${label}:`);
  }

  /** Waits for all threads of the block, and for what they wrote to shared memory. */
  barrier(): void {
    this.lines.push('bar.sync 0;');
  }

  /** Shared memory. @returns a register with its address there */
  array(bytes: number): string {
    const name = `shared${this.shared.length}`;
    this.shared.push(`.shared .align 16 .b8 ${name}[${bytes}];`);
    return this.int('mov.u32', name);
  }

  /** What a parameter points to. */
  pointer(parameter: number): string {
    return `$${parameter + 1}`;
  }

  /** base + index·size, of memory of the card */
  address(base: string, index: string, size: number): string {
    const scaled = this.set('d', 'mul.wide.u32', index, size);
    return this.set('d', 'add.s64', base, scaled);
  }

  /** base + index·size, of shared memory */
  place(base: string, index: string, size: number): string {
    return this.int('mad.lo.u32', index, size, base);
  }

  /** Over all lanes of a warp, or over spans of `lanes`: every one gets the result. */
  across(op: 'add.f32' | 'max.f32', x: string, lanes = 32): string {
    let value = x;
    for (let step = lanes / 2; step >= 1; step /= 2) {
      const other = this.set('f', 'shfl.sync.bfly.b32', value, step, 31, -1);
      value = this.float(op, value, other);
    }
    return value;
  }

  /** exp(x), to two roundings: the part of x·log2(e) that float32 has no room for counts too. */
  exp(x: string): string {
    const scaled = this.float('mul.f32', x, Math.LOG2E);
    const rest = this.float('fma.rn.f32', x, Math.LOG2E, this.float('neg.f32', scaled));
    const small = this.float('fma.rn.f32', x, Math.LOG2E - Math.fround(Math.LOG2E), rest);
    const power = this.float('ex2.approx.f32', scaled);
    return this.float('fma.rn.f32', this.float('mul.f32', power, small), Math.LN2, power);
  }

  /** x / (1 + exp(-x)) */
  silu(x: string): string {
    // of very negative x the exponential would be infinite, and infinity times 0 no number
    const bounded = this.float('max.f32', x, -80);
    const below = this.float('add.f32', this.exp(this.float('neg.f32', bounded)), 1);
    return this.float('div.full.f32', x, below);
  }

  /** log(1 + exp(x)): of s = exp(-|x|), log(1 + s) as a series of z = s / (2 + s), which is at most 1/3. */
  softplus(x: string): string {
    const distance = this.float('min.f32', this.float('abs.f32', x), 80);
    const s = this.exp(this.float('neg.f32', distance));
    const z = this.float('div.full.f32', s, this.float('add.f32', s, 2));
    const square = this.float('mul.f32', z, z);
    let sum = this.float('mov.f32', 2 / 17);
    for (let odd = 15; odd >= 1; odd -= 2) sum = this.float('fma.rn.f32', sum, square, 2 / odd);
    return this.float('fma.rn.f32', z, sum, this.float('max.f32', x, 0));
  }

  /** The block's share of `total` things that blocks share evenly: its first one, and how many are its own. */
  share(total: number, blocks: number): { base: string; count: string } {
    const [whole, rest] = [Math.floor(total / blocks), total % blocks];
    const before = this.int('min.u32', this.block, rest);
    const base = this.int('mad.lo.u32', this.block, whole, before);
    const more = this.int('selp.u32', 1, 0, this.compare('lt.u32', this.block, rest));
    return { base, count: this.int('add.u32', more, whole) };
  }

  /** The block of assembly: its parameters are $1, $2, …; $0 is a result of no meaning. */
  text(): string {
    const declared = (Object.keys(DECLARED) as RegisterKind[])
      .filter((kind) => this.counts[kind] > 0)
      .map((kind) => `.reg .${DECLARED[kind]} ${kind}<${this.counts[kind]}>;`);
    return ['{', ...declared, ...this.shared, ...this.lines, 'mov.u32 $0, 0;', '}'].join('\n');
  }

  /** @param grid blocks that are run */
  kernel(grid: number): TritonKernel {
    const wide = `tensor<${32 * this.warps}xi64>`;
    const operands = this.parameters.map((_, i) => `%b${i}`);
    const lines = this.parameters.flatMap((dtype, i) => [
      `    %a${i} = tt.ptr_to_int %p${i} : !tt.ptr<${ELEMENTS[dtype]}> -> i64`,
      `    %b${i} = tt.splat %a${i} : i64 -> ${wide}`,
    ]);
    const constraints = ['=r', ...operands.map(() => 'l')].join(',');
    const types = operands.map(() => wide).join(', ');
    const parameters = this.parameters.map(
      (dtype, i) => `%p${i}: !tt.ptr<${ELEMENTS[dtype]}> {tt.divisibility = 16 : i32}`,
    );
    const text = [
      'module {',
      `  tt.func public @${this.name}(${parameters.join(', ')}) attributes {noinline = false} {`,
      ...lines,
      `    %r = tt.elementwise_inline_asm "${this.text().replace(/\n/g, ' ')}" {constraints = "${constraints}", packed_element = 1 : i32, pure = false} ${operands.join(', ')} : ${types} -> tensor<${32 * this.warps}xi32>`,
      '    tt.return',
      '  }',
      '}',
      '',
    ];
    return { name: this.name, text: text.join('\n'), grid, warps: this.warps };
  }
}
