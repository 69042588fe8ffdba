/**
 * How programs call the kernels of CPUs (native/handlers.h): the numbers and the operands of each call, described once.
 * native/host_calls.h is written from these tables by `npx tsx scripts/native_header.ts`, and a test holds the two together. A change
 * here needs a new NATIVE_VERSION (src/runtime/paths.ts), which an addon says when it is loaded.
 */
import { TracingError } from '../../jit/errors.js';

/** Outputs of a tile. */
export const TILE = 32;

/** A number of a call. All travel as int64: `float` as the bits of a float32, `flag` as 0 or 1. */
export interface CallNumber {
  readonly kind: 'int' | 'float' | 'flag';
  readonly meaning: string;
}

/** A tensor that a call reads. */
export interface CallOperand {
  /** `level`: float32, or bfloat16 where the call says so. */
  readonly type: 'float' | 'uint8' | 'level';
  /** Flags of the call, any of which says that the operand is there. Absent: it always is. */
  readonly when?: readonly string[];
  readonly meaning: string;
}

/** Numbers and operands of a call, in their order. */
export interface CallSpec {
  readonly numbers: Readonly<Record<string, CallNumber>>;
  readonly operands: Readonly<Record<string, CallOperand>>;
}

const int = (meaning: string) => ({ kind: 'int', meaning }) as const;
const float = (meaning: string) => ({ kind: 'float', meaning }) as const;
const flag = (meaning: string) => ({ kind: 'flag', meaning }) as const;

/** A matrix in tiles; src/quant/tile_form.ts says how the codes lie. */
const MATRIX = {
  codes: { type: 'uint8', meaning: '[tiles, groups, group/8, TILE, 4], two channels a byte' },
  scale: { type: 'level', meaning: '[tiles, groups, TILE]' },
  zero: { type: 'level', meaning: '[tiles, groups, TILE]; w = (code - 8)*scale + zero' },
} as const;

/** x·Wᵀ for any number of rows, [rows, out]. */
export const INT4_PRODUCT = {
  numbers: {
    rows: int('rows of x'),
    inner: int('channels of x'),
    group: int('channels that share a scale'),
    out: int('outputs'),
    bf16Levels: flag('scale and zero are bfloat16'),
  },
  operands: { x: { type: 'float', meaning: '[rows, inner]' }, ...MATRIX },
} as const satisfies CallSpec;

/**
 * A decoding step of a layer for some rows: x + W2·(norm((y + D·x')·silu(z))·normGamma), where z | x' B C | dt is W1·(norm(x)·gamma), the middle
 * after the convolution and SiLU, and y what the recurrence gives for one token. States and contexts are moved on where they lie.
 */
export const LAYER_STEP = {
  numbers: {
    rows: int('rows of x'),
    hidden: int('channels of the stream'),
    heads: int('of the recurrence'),
    headDim: int('channels of a head, p'),
    groups: int('heads of a group share B and C'),
    stateSize: int('n'),
    taps: int('of the convolution'),
    normGroups: int('groups of channels, each normed by itself before the output projection'),
    contextRow: int('from a row of the contexts to the next'),
    place: int('where this layer begins in such a row'),
    epsilon: float('added to mean squares'),
    low: float('least step size'),
    high: float('largest step size'),
    hasMask: flag('some rows keep their state; what they give means nothing'),
    hasBias: flag('the convolution has a bias'),
    bf16State: flag('the state is bfloat16, else float32'),
    inInt4: flag('the input projection is in codes'),
    inBf16: flag('its weights, or its scales and zeros, are bfloat16'),
    inGroup: int('channels of it that share a scale'),
    outInt4: flag('the output projection is in codes'),
    outBf16: flag('its weights, or its scales and zeros, are bfloat16'),
    outGroup: int('channels of it that share a scale'),
    rounded: flag('what meets a bfloat16 matrix is rounded to bfloat16'),
  },
  operands: {
    x: { type: 'float', meaning: '[rows, hidden]' },
    state: { type: 'level', meaning: '[rows, heads, p, n]' },
    context: { type: 'float', meaning: '[rows, layers, taps-1, heads·p + 2·groups·n]' },
    mask: { type: 'float', when: ['hasMask'], meaning: '[rows], 0 for rows that keep their state' },
    gamma: { type: 'float', meaning: 'of the norm before the input projection, [hidden]' },
    inMatrix: { type: 'level', meaning: 'weights [out, inner], or codes in tiles as MATRIX has them' },
    inScale: { type: 'level', when: ['inInt4'], meaning: '[tiles, groups, TILE]' },
    inZero: { type: 'level', when: ['inInt4'], meaning: '[tiles, groups, TILE]' },
    taps: { type: 'float', meaning: '[heads·p + 2·groups·n, taps]' },
    bias: { type: 'float', when: ['hasBias'], meaning: '[heads·p + 2·groups·n]' },
    dtBias: { type: 'float', meaning: '[heads]' },
    aLog: { type: 'float', meaning: '[heads]' },
    d: { type: 'float', meaning: '[heads]' },
    normGamma: { type: 'float', meaning: 'of the norm before the output projection, [heads·p]' },
    outMatrix: { type: 'level', meaning: 'weights [out, inner], or codes in tiles as MATRIX has them' },
    outScale: { type: 'level', when: ['outInt4'], meaning: '[tiles, groups, TILE]' },
    outZero: { type: 'level', when: ['outInt4'], meaning: '[tiles, groups, TILE]' },
  },
} as const satisfies CallSpec;

/** x·Wᵀ for a few rows, [rows, out]; sums are float32. W is read once for all of them. */
export const DENSE_PRODUCT = {
  numbers: {
    rows: int('rows of x'),
    inner: int('channels of x'),
    out: int('outputs'),
    bf16: flag('w is bfloat16'),
    rounded: flag('x is rounded to bfloat16, where w is'),
  },
  operands: {
    x: { type: 'float', meaning: '[rows, inner]' },
    w: { type: 'level', meaning: '[out, inner]' },
  },
} as const satisfies CallSpec;

/** The numbers of a call by name. */
export type CallOf<S extends CallSpec> = {
  [K in keyof S['numbers']]: S['numbers'][K]['kind'] extends 'flag' ? boolean : number;
};
export type Int4ProductCall = CallOf<typeof INT4_PRODUCT>;
export type LayerStepCall = CallOf<typeof LAYER_STEP>;
export type DenseProductCall = CallOf<typeof DENSE_PRODUCT>;

/** The bits of a number as float32. */
function bitsOf(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0]!;
}

/** The numbers of a call as they travel. */
export function packNumbers<S extends CallSpec>(spec: S, call: CallOf<S>): number[] {
  return Object.entries(spec.numbers).map(([name, { kind }]) => {
    const value = call[name as keyof CallOf<S>];
    return kind === 'float' ? bitsOf(value as number) : Number(value);
  });
}

/** Names of the operands that a call has, in order. */
export function operandNames<S extends CallSpec>(spec: S, call: CallOf<S>): (keyof S['operands'] & string)[] {
  return Object.entries(spec.operands)
    .filter(([, { when }]) => !when || when.some((name) => call[name as keyof CallOf<S>]))
    .map(([name]) => name);
}

/** The operands that a call has, in order. @param given by name; those that it does not have may be absent */
export function operandsOf<S extends CallSpec, T>(
  spec: S,
  call: CallOf<S>,
  given: Readonly<Partial<Record<keyof S['operands'] & string, T | undefined>>>,
): T[] {
  return operandNames(spec, call).map((name) => {
    const value = given[name];
    if (value === undefined) throw new TracingError(`internal: a kernel was called without ${name}`, { name });
    return value;
  });
}
