/**
 * How programs call the int4 kernels of CPUs (native/host_kernels.cc): the numbers and the operands of each call, described once.
 * native/int4_calls.h is written from these tables by `npx tsx scripts/native_header.ts`, and a test holds the two together. A change
 * here needs a new NATIVE_VERSION (src/runtime/paths.ts), which an addon says when it is loaded.
 */

/** Outputs of a tile. */
export const TILE = 32;

/** A number of a call. All travel as int64: `float` as the bits of a float32, `flag` as 0 or 1. */
export interface CallNumber {
  readonly kind: 'int' | 'float' | 'flag';
  readonly meaning: string;
}

/** A tensor that a call reads. */
export interface CallOperand {
  /** `level`: float32, or bfloat16 where the call says bf16Levels. */
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
 * One row's product with what is around it in a layer: residual + W·(norm((x + D·skipped)·silu(gate))·gamma), [1, out], and behind it what
 * the epilogue makes of outputs from `first` on: silu(convolution) of `channels`, and a step size for each of the outputs after them.
 */
export const INT4_ROW = {
  numbers: {
    inner: int('channels of x'),
    group: int('channels that share a scale'),
    out: int('outputs'),
    hasGate: flag('x is multiplied by silu(gate)'),
    hasSkip: flag('D times a part of gate is added to x'),
    hasNorm: flag('x is normed'),
    hasResidual: flag('a residual is added'),
    hasEpilogue: flag('convolution and step sizes follow'),
    hasBias: flag('the convolution has a bias'),
    bf16Levels: flag('scale and zero are bfloat16'),
    skipHeads: int('values of D, each for inner/skipHeads channels'),
    skipOffset: int('where in gate the channels begin that D multiplies'),
    normGroups: int('groups of channels, each normed by itself'),
    epsilon: float('added to the mean square'),
    first: int('output that the convolution begins with'),
    channels: int('of the convolution'),
    taps: int('of the convolution'),
    low: float('least step size'),
    high: float('largest step size'),
    place: int('where this layer begins in context'),
  },
  operands: {
    x: { type: 'float', meaning: '[inner]' },
    gate: { type: 'float', when: ['hasGate', 'hasSkip'], meaning: '[inner or more]' },
    d: { type: 'float', when: ['hasSkip'], meaning: '[skipHeads]' },
    gamma: { type: 'float', when: ['hasNorm'], meaning: '[inner]' },
    ...MATRIX,
    residual: { type: 'float', when: ['hasResidual'], meaning: '[out]' },
    context: { type: 'float', when: ['hasEpilogue'], meaning: 'of all layers, each [taps-1, channels]' },
    taps: { type: 'float', when: ['hasEpilogue'], meaning: '[channels, taps]' },
    bias: { type: 'float', when: ['hasBias'], meaning: '[channels]' },
    dtBias: { type: 'float', when: ['hasEpilogue'], meaning: '[heads]' },
  },
} as const satisfies CallSpec;

/** The numbers of a call by name. */
export type CallOf<S extends CallSpec> = {
  [K in keyof S['numbers']]: S['numbers'][K]['kind'] extends 'flag' ? boolean : number;
};
export type Int4ProductCall = CallOf<typeof INT4_PRODUCT>;
export type Int4RowCall = CallOf<typeof INT4_ROW>;

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
