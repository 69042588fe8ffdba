/**
 * Runs a kernel that is a block of PTX (src/jit/custom_call/ptx.ts), thread by thread in plain loops: what it means can then be checked without a GPU.
 * Knows the instructions that PtxWriter writes. Stricter than a card: reads beyond a buffer, wide reads off their alignment, branches that
 * part the threads of a warp, barriers that not all warps reach, reads by `ld.global.nc` of what the kernel has written, and conditions
 * that nobody wrote are errors. Other registers that nobody wrote hold NaN or its bits.
 */
import { bitsOf, floatOf } from './bits.js';
import { InterpreterError } from './errors.js';
import { addressOf, CardMemory, checked, type Location } from './ptx_memory.js';
import { COMPARE, PLAIN, u } from './ptx_numbers.js';
import { namesOf, parsePtx, type PtxProgram } from './ptx_program.js';
import { multiplyTiles } from './ptx_tiles.js';

const LANES = 32;

/** A register's value in each thread of the block. */
type Lanes = Float64Array;

const places = new Map<string, { base: string; offset: number }>();

/** The parts of an address such as `[d3+16]`. */
function placeOf(text: string): { base: string; offset: number } {
  let found = places.get(text);
  if (!found) {
    const [, base, offset] = /^\[(.*?)(?:\+(-?\d+))?\]$/.exec(text)!;
    places.set(text, (found = { base: base!, offset: Number(offset ?? 0) }));
  }
  return found;
}

/** Bytes on their way to shared memory. */
type Copy = [to: number, bytes: Uint8Array];

/** A block of threads. */
class Block {
  private readonly registers = new Map<string, Lanes>();
  private readonly operands = new Map<string, number | Lanes>();
  private readonly arrays = new Map<string, number>();
  private readonly shared: DataView;
  /** Copies to shared memory that a warp asked for and did not wait for: their values are not there before. */
  private readonly copies = new Map<number, { open: Copy[]; groups: Copy[][] }>();

  constructor(
    private readonly program: PtxProgram,
    private readonly card: CardMemory,
    private readonly block: number,
    private readonly warps: number,
  ) {
    let at = 0;
    for (const [name, bytes] of program.shared) {
      this.arrays.set(name, at);
      at += Math.ceil(bytes / 16) * 16;
    }
    this.shared = new DataView(new ArrayBuffer(at));
    for (let i = 0; i + 4 <= at; i += 4) this.shared.setFloat32(i, NaN, true);
  }

  run(): void {
    const at = new Array<number>(this.warps).fill(0);
    while (at[0]! < this.program.code.length) {
      at.forEach((from, warp) => (at[warp] = this.warp(warp, from)));
      if (new Set(at).size > 1)
        throw new InterpreterError('ptx', `warps wait at different places: ${at.join()}`, { at, block: this.block });
    }
  }

  /** Runs a warp until a barrier or the end. @returns where it goes on */
  private warp(warp: number, from: number): number {
    for (let i = from; i < this.program.code.length; i++) {
      const { guard, negated, op, operands } = this.program.code[i]!;
      if (op === 'bar.sync') return i + 1;
      const on = Array.from({ length: LANES }, (_, lane) => {
        if (!guard) return true;
        const holds = this.lanes(guard)[warp * LANES + lane]!;
        if (Number.isNaN(holds))
          throw new InterpreterError('ptx', `${op} under a condition that nobody wrote`, { instruction: op, guard });
        return Boolean(holds) !== negated;
      });
      if (op === 'bra.uni') {
        if (on.some((x) => x !== on[0]))
          throw new InterpreterError('ptx', 'a branch parts the threads of a warp', { guard, warp });
        if (on[0]) i = this.program.labels.get(operands[0]!)! - 1;
        continue;
      }
      this.step(op, operands, warp, on);
    }
    return this.program.code.length;
  }

  private lanes(name: string): Lanes {
    let found = this.registers.get(name);
    if (!found) {
      found = new Float64Array(this.warps * LANES).fill(name.startsWith('r') ? bitsOf(NaN) : NaN);
      this.registers.set(name, found);
    }
    return found;
  }

  private value(text: string, thread: number): number {
    let known = this.operands.get(text);
    if (known === undefined) this.operands.set(text, (known = this.resolve(text)));
    return typeof known === 'number' ? known : known[thread]!;
  }

  /** What an operand is: the same for all threads, or by thread. */
  private resolve(text: string): number | Lanes {
    if (/^[rfdp]\d+$/.test(text)) return this.lanes(text);
    if (text.startsWith('$')) return addressOf(Number(text.slice(1)) - 1);
    if (text.startsWith('0f')) return floatOf(parseInt(text.slice(2), 16) | 0);
    if (text === '%tid.x') return Float64Array.from({ length: this.warps * LANES }, (_, thread) => thread);
    if (text === '%ctaid.x') return this.block;
    if (this.arrays.has(text)) return this.arrays.get(text)!;
    const number = Number(text);
    if (Number.isNaN(number)) throw new InterpreterError('ptx', `unknown operand ${text}`, { operand: text });
    return text.startsWith('0x') ? number | 0 : number;
  }

  private set(name: string, thread: number, value: number): void {
    this.lanes(name)[thread] = name.startsWith('r') ? value | 0 : value;
  }

  private step(op: string, operands: readonly string[], warp: number, on: readonly boolean[]): void {
    const threads = on.flatMap((yes, lane) => (yes ? [warp * LANES + lane] : []));
    const [to, ...from] = operands as [string, ...string[]];
    if (op.startsWith('prefetch.')) {
      // beyond memory it would do no harm, but be of no use
      for (const thread of threads) this.locate(op, to, 1, thread);
      return;
    }
    if (op.startsWith('ld.') || op.startsWith('st.')) {
      for (const thread of threads) this.access(op, operands, thread);
    } else if (op === 'cp.async.cg.shared.global') {
      const { open } = this.copiesOf(warp);
      for (const thread of threads) {
        const { at } = this.locate('st.shared', to, 16, thread);
        const source = this.locate('ld.global', from[0]!, 16, thread);
        open.push([at, new Uint8Array(source.view.buffer, source.view.byteOffset + source.at, 16).slice()]);
        for (let i = 0; i < 16; i += 4) this.shared.setFloat32(at + i, NaN, true);
      }
    } else if (op === 'cp.async.commit_group') {
      const own = this.copiesOf(warp);
      own.groups.push(own.open.splice(0));
    } else if (op === 'cp.async.wait_group') {
      const { groups } = this.copiesOf(warp);
      for (const group of groups.splice(0, groups.length - Number(to)))
        for (const [at, bytes] of group) new Uint8Array(this.shared.buffer).set(bytes, at);
    } else if (op.startsWith('mma.sync')) {
      if (threads.length !== LANES)
        throw new InterpreterError('ptx', 'a matrix product without all threads of the warp', { instruction: op });
      const own = operands.map((list) => namesOf(list).map((name) => Array.from(threads, (t) => this.value(name, t))));
      const results = multiplyTiles(own[1]!, own[2]!, own[3]!);
      namesOf(to).forEach((name, i) => threads.forEach((t, lane) => this.set(name, t, results[i]![lane]!)));
    } else if (op.startsWith('shfl.sync')) {
      if (threads.length !== LANES)
        throw new InterpreterError('ptx', 'a shuffle without all threads of the warp', { instruction: op });
      const given = threads.map((thread) => this.value(from[0]!, thread));
      threads.forEach((thread, lane) => {
        const other = this.value(from[1]!, thread);
        this.set(to, thread, given[op.includes('bfly') ? lane ^ other : other & 31]!);
      });
    } else if (op.startsWith('setp.')) {
      const [, how, type] = op.split('.') as [string, string, string];
      for (const thread of threads) {
        const [a, b] = from.map((x) => (type === 'u32' ? u(this.value(x, thread)) : this.value(x, thread)));
        this.set(to, thread, Number(COMPARE[how]!(a!, b!)));
      }
    } else if (op.startsWith('mov.')) {
      for (const thread of threads) {
        const value = this.value(from[0]!, thread);
        const kinds = op === 'mov.b32' ? to[0]! + from[0]![0]! : '';
        this.set(to, thread, kinds === 'fr' ? floatOf(value) : kinds === 'rf' ? bitsOf(value) : value);
      }
    } else {
      const plain = PLAIN[op];
      if (!plain) throw new InterpreterError('ptx', `unknown instruction ${op}`, { instruction: op, operands });
      for (const thread of threads) this.set(to, thread, plain(...from.map((x) => this.value(x, thread))));
    }
  }

  private copiesOf(warp: number): { open: Copy[]; groups: Copy[][] } {
    const own = this.copies.get(warp) ?? { open: [], groups: [] };
    this.copies.set(warp, own);
    return own;
  }

  /** Where an address such as `[d3+16]` of a global or shared access of so many bytes lies. */
  private locate(op: string, place: string, bytes: number, thread: number): Location {
    const { base, offset } = placeOf(place);
    const address = this.value(base, thread) + offset;
    if (op.includes('.global')) return this.card.locate(op, address, bytes, thread);
    return checked(op, this.shared, address, bytes, { parameter: 'shared memory', thread });
  }

  private access(op: string, operands: readonly string[], thread: number): void {
    const store = op.startsWith('st.');
    const [values, place] = (store ? [operands[1]!, operands[0]!] : operands) as [string, string];
    const names = namesOf(values);
    const width = op.endsWith('u16') ? 2 : 4;
    const { view, at } = this.locate(op, place, width * names.length, thread);
    names.forEach((name, i) => {
      const float = op.endsWith('f32');
      const from = at + width * i;
      if (store && op.includes('.global')) this.card.writes({ view, at: from });
      if (op.startsWith('ld.global.nc') && this.card.wasWritten({ view, at: from }))
        throw new InterpreterError('ptx', `${op} of what the kernel itself has written`, { instruction: op, at: from });
      if (width === 2 && store) return view.setUint16(from, this.value(name, thread), true);
      if (width === 2) return this.set(name, thread, view.getUint16(from, true));
      if (!store) this.set(name, thread, float ? view.getFloat32(from, true) : view.getInt32(from, true));
      else if (float) view.setFloat32(from, this.value(name, thread), true);
      else view.setInt32(from, this.value(name, thread), true);
    });
  }
}

/**
 * Runs all blocks of a kernel, one after another.
 * @param memory a buffer for each parameter, of which several may be the same; results are written there
 * @throws InterpreterError where the kernel does what it must not
 */
export function runPtx(
  kernel: { text: string; grid: number; warps: number },
  memory: readonly ArrayBufferView[],
): void {
  const program = parsePtx(kernel.text);
  const card = new CardMemory(memory);
  for (let block = 0; block < kernel.grid; block++) new Block(program, card, block, kernel.warps).run();
}
