/**
 * Runs a kernel that is a block of PTX (src/jit/custom_call/ptx.ts), thread by thread in plain loops: what it means can then be checked without a GPU.
 * Knows the instructions that PtxWriter writes. Stricter than a card: reads beyond a buffer, wide reads off their alignment, branches that
 * part the threads of a warp, barriers that not all warps reach, reads by `ld.global.nc` of what the kernel has written, and conditions
 * that nobody wrote are errors. Other registers that nobody wrote hold NaN or its bits.
 */
import { bitsOf, COMPARE, floatOf, PLAIN, u } from './ptx_numbers.js';
import { multiplyTiles } from './ptx_tiles.js';

const BUFFER = 2 ** 40; // addresses: number of the buffer times this, and a place in bytes
const LANES = 32;

type Lanes = Float64Array;

interface Instruction {
  guard: string | null;
  negated: boolean;
  op: string;
  operands: string[];
}

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

/** Memory of the card: the buffers of the parameters, of which several may be one. */
class Card {
  readonly views: DataView[];
  /** Words that the kernel has written, by the memory that they lie in. */
  private readonly written = new Map<ArrayBufferLike, Uint8Array>();

  constructor(memory: readonly ArrayBufferView[]) {
    this.views = memory.map((x) => new DataView(x.buffer, x.byteOffset, x.byteLength));
  }

  private words(view: DataView): Uint8Array {
    let found = this.written.get(view.buffer);
    if (!found) this.written.set(view.buffer, (found = new Uint8Array(Math.ceil(view.buffer.byteLength / 4))));
    return found;
  }

  writes(view: DataView, at: number): void {
    this.words(view)[(view.byteOffset + at) >> 2] = 1;
  }

  wasWritten(view: DataView, at: number): boolean {
    return this.words(view)[(view.byteOffset + at) >> 2] === 1;
  }
}

const namesOf = (list: string): string[] =>
  list
    .replace(/[{}]/g, '')
    .split(',')
    .map((x) => x.trim());

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
    private readonly code: readonly Instruction[],
    private readonly labels: ReadonlyMap<string, number>,
    private readonly card: Card,
    shared: readonly (readonly [string, number])[],
    private readonly block: number,
    private readonly warps: number,
  ) {
    let at = 0;
    for (const [name, bytes] of shared) {
      this.arrays.set(name, at);
      at += Math.ceil(bytes / 16) * 16;
    }
    this.shared = new DataView(new ArrayBuffer(at));
    for (let i = 0; i + 4 <= at; i += 4) this.shared.setFloat32(i, NaN, true);
  }

  run(): void {
    const at = new Array<number>(this.warps).fill(0);
    while (at[0]! < this.code.length) {
      at.forEach((from, warp) => (at[warp] = this.warp(warp, from)));
      if (new Set(at).size > 1) throw new Error(`ptx: warps wait at different places: ${at.join()}`);
    }
  }

  /** Runs a warp until a barrier or the end. @returns where it goes on */
  private warp(warp: number, from: number): number {
    for (let i = from; i < this.code.length; i++) {
      const { guard, negated, op, operands } = this.code[i]!;
      if (op === 'bar.sync') return i + 1;
      const on = Array.from({ length: LANES }, (_, lane) => {
        if (!guard) return true;
        const holds = this.lanes(guard)[warp * LANES + lane]!;
        if (Number.isNaN(holds)) throw new Error(`ptx: ${op} under a condition that nobody wrote`);
        return Boolean(holds) !== negated;
      });
      if (op === 'bra.uni') {
        if (on.some((x) => x !== on[0])) throw new Error('ptx: a branch parts the threads of a warp');
        if (on[0]) i = this.labels.get(operands[0]!)! - 1;
        continue;
      }
      this.step(op, operands, warp, on);
    }
    return this.code.length;
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
    if (text.startsWith('$')) return (Number(text.slice(1)) - 1) * BUFFER;
    if (text.startsWith('0f')) return floatOf(parseInt(text.slice(2), 16) | 0);
    if (text === '%tid.x') return Float64Array.from({ length: this.warps * LANES }, (_, thread) => thread);
    if (text === '%ctaid.x') return this.block;
    if (this.arrays.has(text)) return this.arrays.get(text)!;
    const number = Number(text);
    if (Number.isNaN(number)) throw new Error(`ptx: unknown operand ${text}`);
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
    if (op.startsWith('fence.')) return;
    if (op === 'atom.acq_rel.gpu.global.add.u32') {
      for (const thread of threads) {
        const { view, at } = this.locate(op, from[0]!, 4, thread);
        const old = view.getInt32(at, true);
        view.setInt32(at, (old + this.value(from[1]!, thread)) | 0, true);
        this.card.writes(view, at);
        this.set(to, thread, old);
      }
    } else if (op.startsWith('ld.') || op.startsWith('st.')) {
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
      if (threads.length !== LANES) throw new Error('ptx: a matrix product without all threads of the warp');
      const own = operands.map((list) => namesOf(list).map((name) => Array.from(threads, (t) => this.value(name, t))));
      const results = multiplyTiles(own[1]!, own[2]!, own[3]!);
      namesOf(to).forEach((name, i) => threads.forEach((t, lane) => this.set(name, t, results[i]![lane]!)));
    } else if (op.startsWith('shfl.sync')) {
      if (threads.length !== LANES) throw new Error('ptx: a shuffle without all threads of the warp');
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
      if (!plain) throw new Error(`ptx: unknown instruction ${op}`);
      for (const thread of threads) this.set(to, thread, plain(...from.map((x) => this.value(x, thread))));
    }
  }

  private copiesOf(warp: number): { open: Copy[]; groups: Copy[][] } {
    const own = this.copies.get(warp) ?? { open: [], groups: [] };
    this.copies.set(warp, own);
    return own;
  }

  /** Where an address such as `[d3+16]` of a global or shared access of so many bytes lies. */
  private locate(op: string, place: string, bytes: number, thread: number): { view: DataView; at: number } {
    const { base, offset } = placeOf(place);
    const address = this.value(base, thread) + offset;
    const global = op.includes('.global');
    const buffer = global ? Math.round(address / BUFFER - 1e-4) : 0;
    const view = global ? this.card.views[buffer] : this.shared;
    const at = global ? address - buffer * BUFFER : address;
    if (!view || !(at >= 0 && at + bytes <= view.byteLength))
      throw new Error(`ptx: ${op} at ${at} of ${view?.byteLength} bytes (parameter ${buffer}, thread ${thread})`);
    if (at % bytes !== 0) throw new Error(`ptx: ${op} at ${at}, which is not aligned`);
    return { view, at };
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
      if (store && op.includes('.global')) this.card.writes(view, from);
      if (op.startsWith('ld.global.nc') && this.card.wasWritten(view, from))
        throw new Error(`ptx: ${op} of what the kernel itself has written`);
      if (width === 2 && store) return view.setUint16(from, this.value(name, thread), true);
      if (width === 2) return this.set(name, thread, view.getUint16(from, true));
      if (!store) this.set(name, thread, float ? view.getFloat32(from, true) : view.getInt32(from, true));
      else if (float) view.setFloat32(from, this.value(name, thread), true);
      else view.setInt32(from, this.value(name, thread), true);
    });
  }
}

/** Operands of an instruction: commas within braces do not part them. */
const split = (text: string): string[] =>
  text
    .match(/\{[^}]*\}|[^,{}]+/g)
    ?.map((x) => x.trim())
    .filter(Boolean) ?? [];

/** Runs all blocks of a kernel over buffers, one per parameter. The same buffer may be several. */
export function runPtx(
  kernel: { text: string; grid: number; warps: number },
  memory: readonly ArrayBufferView[],
): void {
  const body = /elementwise_inline_asm "\{(.*)\}" \{/.exec(kernel.text)![1]!;
  const code: Instruction[] = [];
  const labels = new Map<string, number>();
  const shared: [string, number][] = [];
  for (const line of body.split(';').map((x) => x.trim())) {
    let text = line;
    for (let label; (label = /^(\w+):\s*/.exec(text)); text = text.slice(label[0].length))
      labels.set(label[1]!, code.length);
    const array = /^\.shared .* (\w+)\[(\d+)\]$/.exec(text);
    if (array) shared.push([array[1]!, Number(array[2])]);
    else if (text && !text.startsWith('.reg') && !text.includes('$0')) {
      const [, not, guard, op, operands] = /^(?:@(!?)(\w+) )?(\S+)\s*(.*)$/.exec(text)!;
      code.push({ guard: guard ?? null, negated: not === '!', op: op!, operands: split(operands!) });
    }
  }
  const card = new Card(memory);
  for (let block = 0; block < kernel.grid; block++) new Block(code, labels, card, shared, block, kernel.warps).run();
}
