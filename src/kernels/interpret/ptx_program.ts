/** A kernel that is a block of PTX in a Triton kernel (src/jit/custom_call/ptx.ts), taken apart into instructions. */
import { InterpreterError } from './errors.js';

export interface Instruction {
  /** The condition that it takes place under, or null, and whether that must not hold. */
  guard: string | null;
  negated: boolean;
  op: string;
  operands: string[];
}

export interface PtxProgram {
  code: Instruction[];
  /** Number of the instruction that follows a label. */
  labels: Map<string, number>;
  /** Arrays in shared memory, with their bytes. */
  shared: [name: string, bytes: number][];
}

/** Operands of an instruction: commas within braces do not part them. */
const operandsOf = (text: string): string[] =>
  text
    .match(/\{[^}]*\}|[^,{}]+/g)
    ?.map((x) => x.trim())
    .filter(Boolean) ?? [];

/** Names in a list such as `{r1, r2}`; a name alone is a list of one. */
export const namesOf = (list: string): string[] =>
  list
    .replace(/[{}]/g, '')
    .split(',')
    .map((x) => x.trim());

/** @param text of the kernel in TTIR */
export function parsePtx(text: string): PtxProgram {
  const body = /elementwise_inline_asm "\{(.*)\}" \{/.exec(text)?.[1];
  if (body === undefined) throw new InterpreterError('ptx', 'the kernel has no block of assembly', { text });
  const program: PtxProgram = { code: [], labels: new Map(), shared: [] };
  for (const part of body.split(';').map((x) => x.trim())) {
    let line = part;
    for (let label; (label = /^(\w+):\s*/.exec(line)); line = line.slice(label[0].length))
      program.labels.set(label[1]!, program.code.length);
    const array = /^\.shared .* (\w+)\[(\d+)\]$/.exec(line);
    if (array) program.shared.push([array[1]!, Number(array[2])]);
    // registers are made when they are first used, and $0 is a result of no meaning
    else if (line && !line.startsWith('.reg') && !line.includes('$0')) program.code.push(instruction(line));
  }
  return program;
}

function instruction(line: string): Instruction {
  const [, not, guard, op, operands] = /^(?:@(!?)(\w+) )?(\S+)\s*(.*)$/.exec(line)!;
  return { guard: guard ?? null, negated: not === '!', op: op!, operands: operandsOf(operands!) };
}
