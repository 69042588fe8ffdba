/**
 * A decoding step of one row through a whole layer as one kernel in PTX: input projection with all around it, recurrence with skip and gate,
 * output projection with norm and residual. The same blocks do one after the other, with barriers of all of them between (ptx_grid.ts):
 * before it waits, a warp asks for what it will need of the next part, so that memory is never idle. Three kernels would each start anew.
 */
import { ArgumentError } from '../errors/index.js';
import { PtxWriter } from './ptx.js';
import { type Fetch, fetchShared, fetchSpan } from './ptx_fetch.js';
import { COUNTER_WORDS, GridBarriers } from './ptx_grid.js';
import { RowPhase, type RowPointers, RowPtx, rowPtxFits, rowPtxTiling, type RowPtxTiling } from './row_ptx.js';
import { type Activations, parametersOf, type RowFormat, type RowProductSpec } from './row_spec.js';
import { type StateRowsSpec, StateRows, stateRowsOf } from './state_ptx.js';
import type { TritonKernel } from './triton.js';
import type { Dtype } from './types.js';

/** A layer's sizes and constants; letters as in ssd.ts. */
export interface LayerSpec {
  /** Width of the stream, d. */
  width: number;
  heads: number;
  headDim: number;
  groups: number;
  stateSize: number;
  stateType: 'float32' | 'bfloat16';
  /** Groups of the norm before the output projection. */
  normGroups: number;
  epsilon: number;
  taps: number;
  bias: boolean;
  limit: readonly [number, number];
  /** Matrices of the input and of the output projection. */
  first: RowFormat;
  second: RowFormat;
  /** A mask is given: of 0 state and context stay as they are. */
  masked: boolean;
  /** The next layer has an input projection of the same form. */
  follow: boolean;
}

/** The two products of a layer. */
export interface Products {
  first: RowProductSpec & { activations: Activations };
  second: RowProductSpec;
}

export function productsOf(spec: LayerSpec): Products {
  const { width, heads, epsilon, taps, bias, limit } = spec;
  const inner = heads * spec.headDim;
  const channels = inner + 2 * spec.groups * spec.stateSize;
  const activations = { first: inner, channels, taps, heads, bias, limit };
  return {
    first: {
      out: inner + channels + heads,
      inner: width,
      format: spec.first,
      norm: { groups: 1, epsilon },
      activations,
    },
    second: {
      out: width,
      inner,
      format: spec.second,
      norm: { groups: spec.normGroups, epsilon },
      residual: true,
    },
  };
}

/** Elements that the input projection gives: see Activations. */
export function projectedSize(spec: LayerSpec): number {
  const { first } = productsOf(spec);
  return first.out + first.activations.channels + 2 * spec.heads;
}

/**
 * Names and types of the inputs, in order: those of the input projection, mask, D and state; those of the output projection without vector
 * and residual, which are at hand; the counters of the barriers.
 */
export function layerInputs(spec: LayerSpec): (readonly [name: string, dtype: Dtype])[] {
  const { first, second } = productsOf(spec);
  return [
    ...parametersOf(first),
    ...(spec.masked ? [['mask', 'float32'] as const] : []),
    ['D', 'float32'],
    ['state', spec.stateType],
    ...parametersOf(second)
      .filter(([name]) => name !== 'x' && name !== 'residual')
      .map(([name, dtype]) => [`second.${name}`, dtype] as const),
    ['counters', 'int32'],
    ...(spec.follow ? parametersOf(first).filter(([name]) => MATRIX.includes(name)) : []).map(
      ([name, dtype]) => [`follow.${name}`, dtype] as const,
    ),
  ];
}

const MATRIX = ['weights', 'codes', 'scale', 'zero'];

/** Outputs, after the inputs: the stream, what the input projection gives, the gated vector; in place of inputs what LAYER_IN_PLACE says. */
export const LAYER_OUTPUTS = ['y', 'projected', 'gated', 'moved', 'next', 'counted'] as const;

/** Outputs that take an input's memory, and their inputs. */
export const LAYER_IN_PLACE = { moved: 'context', next: 'state', counted: 'counters' } as const;

/** Types of outputs. */
export function layerOutputs(spec: LayerSpec): (readonly [name: string, dtype: Dtype])[] {
  const types: Partial<Record<string, Dtype>> = { next: spec.stateType, counted: 'int32' };
  return LAYER_OUTPUTS.map((name) => [name, types[name] ?? 'float32']);
}

/** How a layer is shared out. */
export interface LayerTiling {
  first: RowPtxTiling;
  second: RowPtxTiling;
  /** Reads of a warp's rows of the state that are under way at a time. */
  pieces: number;
  /** Rows of the output projection that each warp brings into the cache before the recurrence, and how; */
  rows: number;
  fetch: Fetch | null;
  /** the first warp, which keeps the barriers, too. */
  all: boolean;
  /** More such rows before the second barrier. */
  later: number;
  /** Whether first rows are in registers before the second barrier. */
  hold: boolean;
  /** Rows of the next layer's input projection that are brought into the cache at the end. */
  follow: number;
}

/** @param blocks as many as certainly run at a time: multiprocessors of the card */
export function layerTiling(spec: LayerSpec, blocks: number): LayerTiling {
  const { first, second } = productsOf(spec);
  const [a, b] = [rowPtxTiling(first, blocks), rowPtxTiling(second, blocks)];
  let pieces = 1;
  while (pieces < 4 && unitsOf(spec, pieces) > blocks * a.warps) pieces *= 2;
  return { first: a, second: b, pieces, rows: 2, fetch: 32, all: true, later: 2, hold: true, follow: 0 };
}

const stateRows = ({ stateSize, stateType }: LayerSpec, pieces: number): StateRowsSpec => ({
  stateSize,
  dtype: stateType,
  pieces,
});

/** Warps' rows that a state is made of. */
function unitsOf(spec: LayerSpec, pieces: number): number {
  return (spec.heads * spec.headDim) / stateRowsOf(stateRows(spec, pieces));
}

/** Whether the kernel can be written for these sizes. */
export function layerFits(spec: LayerSpec, tiling: LayerTiling): boolean {
  const { first, second } = productsOf(spec);
  const rows = stateRowsOf(stateRows(spec, tiling.pieces));
  return (
    rows > 0 &&
    spec.headDim % rows === 0 &&
    tiling.first.warps === tiling.second.warps &&
    tiling.first.blocks === tiling.second.blocks &&
    rowPtxFits(first, tiling.first) &&
    rowPtxFits(second, tiling.second)
  );
}

/** The recurrence, with skip and gate: each warp some rows of the state. */
class StatePhase {
  private readonly rows: StateRows;
  private readonly unit: string;
  private readonly place: string;
  private readonly units: number;

  constructor(
    private readonly k: PtxWriter,
    private readonly spec: LayerSpec,
    private readonly tiling: LayerTiling,
    private readonly pointers: RowPointers,
  ) {
    this.units = unitsOf(spec, tiling.pieces);
    this.rows = new StateRows(k, stateRows(spec, tiling.pieces));
    // neighbouring units go to different blocks, so that all have about as many
    this.unit = k.int('mad.lo.u32', k.warp, tiling.first.blocks, k.block);
    this.place = k.register('d');
    this.locate();
  }

  /** Units beyond the last one read the last one, and write nothing. */
  private get own(): string {
    return this.k.int('min.u32', this.unit, this.units - 1);
  }

  private locate(): void {
    const { k, rows, spec } = this;
    const bytes = rows.count * spec.stateSize * (spec.stateType === 'bfloat16' ? 2 : 4);
    const at = k.address(this.pointers['next']!, this.own, bytes);
    k.run('mov.b64', this.place, rows.place(at));
  }

  /** Brings the warp's rows into the cache. */
  fetch(how: Fetch): void {
    const { k, rows, spec, units } = this;
    const bytes = rows.count * spec.stateSize * (spec.stateType === 'bfloat16' ? 2 : 4);
    k.unless(k.compare('ge.u32', this.unit, units), () =>
      fetchSpan(k, k.address(this.pointers['next']!, this.unit, bytes), bytes, how),
    );
  }

  ask(): void {
    this.rows.ask(this.place);
  }

  run(): void {
    const { k, tiling, units } = this;
    const step = tiling.first.blocks * tiling.first.warps;
    if (units <= step) return this.advance();
    k.repeat(() => {
      this.advance();
      k.run('add.u32', this.unit, this.unit, step);
      this.locate();
      this.ask();
      return k.compare('lt.u32', this.unit, units);
    });
  }

  private advance(): void {
    const { k, rows, spec, pointers } = this;
    const { heads, headDim, groups, stateSize } = spec;
    const { out, activations } = productsOf(spec).first;
    const unit = this.own;
    const head = k.int('div.u32', unit, headDim / rows.count);
    const group = k.int('div.u32', head, heads / groups);
    const row = k.int('mad.lo.u32', unit, rows.count, rows.own);
    const inner = heads * headDim;
    const projected = pointers['projected']!;
    const made = (index: string, offset: number): string =>
      k.set('f', 'ld.global.f32', `[${k.address(projected, index, 4)}+${4 * offset}]`);
    const x = made(row, out);
    const gate = made(row, 0);
    const dt = made(head, out + activations.channels);
    const decay = made(head, out + activations.channels + heads);
    const D = k.set('f', 'ld.global.nc.f32', `[${k.address(pointers['D']!, head, 4)}]`);
    const columns = (offset: number): string[] => {
      const from = k.address(projected, group, 4 * stateSize);
      return rows.columns(k.set('d', 'add.s64', from, 4 * offset), 'ld.global.v4.f32');
    };
    const B = columns(out + inner);
    const C = columns(out + inner + groups * stateSize);
    const y = rows.advance(decay, k.float('mul.f32', x, dt), B, C);
    const gated = k.float('mul.f32', k.float('fma.rn.f32', D, x, y), gate);
    const within = k.compare('lt.u32', this.unit, this.units);
    const written = k.set('p', 'and.pred', within, rows.speaks);
    const to = k.address(pointers['gated']!, row, 4);
    k.when(written, () => k.run('st.global.f32', `[${to}]`, gated));
    let moves = within;
    if (spec.masked) {
      const mask = k.set('f', 'ld.global.nc.f32', `[${pointers['mask']!}]`);
      moves = k.set('p', 'and.pred', within, k.compare('gt.f32', mask, '0f00000000'));
    }
    rows.store(this.place, moves);
  }
}

/** The kernel as it is written. */
export function layerWriter(spec: LayerSpec, tiling: LayerTiling): PtxWriter {
  if (!layerFits(spec, tiling)) throw new ArgumentError('layerKernel: no kernel for these sizes', { spec, tiling });
  const { first, second } = productsOf(spec);
  const { blocks, warps } = tiling.first;
  const parameters = [...layerInputs(spec), ...layerOutputs(spec)];
  const k = new PtxWriter(
    'layer',
    parameters.map(([, dtype]) => dtype),
    warps,
  );
  const at: Record<string, string> = Object.fromEntries(parameters.map(([name], i) => [name, k.pointer(i)]));
  const barriers = new GridBarriers(k, at['counted']!, blocks);

  const projection = { ...at, context: at['moved']!, y: at['projected']! };
  const own = Object.entries(at).filter(([name]) => name.startsWith('second.'));
  const pointers = Object.fromEntries(own.map(([name, pointer]) => [name.slice('second.'.length), pointer]));
  const given = { ...pointers, x: at['gated']!, residual: at['x']!, y: at['y']! };
  const out = (): RowPhase => new RowPhase(new RowPtx(k, second, tiling.second, given));
  const into = new RowPhase(new RowPtx(k, first, tiling.first, projection, spec.masked ? 'masked' : 'always'));
  into.run(() => {
    const how = tiling.fetch;
    if (how === null) return;
    const fetch = (): void => {
      // small, but the next parts cannot begin without it
      const warp = k.int('mad.lo.u32', k.block, warps, k.warp);
      fetchShared(k, at['D']!, 4 * spec.heads, warp);
      fetchShared(k, at['second.gamma']!, 4 * second.inner, warp);
      fetchShared(k, at['x']!, 4 * spec.width, warp);
      new StatePhase(k, spec, tiling, at).fetch(how);
      const next = out();
      for (let row = 0; row < tiling.rows; row++) next.fetch(row, how);
    };
    if (tiling.all) fetch();
    else k.unless(k.compare('eq.u32', k.warp, 0), fetch);
  });
  barriers.wait();
  const state = new StatePhase(k, spec, tiling, at);
  state.ask();
  state.run();
  const ending = out();
  if (tiling.hold) ending.ask();
  for (let row = tiling.rows; row < tiling.rows + tiling.later; row++) ending.fetch(row, tiling.fetch ?? 32);
  barriers.wait();
  k.forgetArrays();
  ending.run(() => {
    if (!spec.follow) return;
    const named = Object.entries(at).filter(([name]) => name.startsWith('follow.'));
    const matrix = Object.fromEntries(named.map(([name, pointer]) => [name.slice('follow.'.length), pointer]));
    const next = new RowPhase(new RowPtx(k, first, tiling.first, matrix));
    for (let row = 0; row < tiling.follow; row++) next.fetch(row, tiling.fetch ?? 32);
  });
  return k;
}

/** The recurrence alone, over the same parameters: to compare. */
export function stateWriter(spec: LayerSpec, tiling: LayerTiling): PtxWriter {
  const parameters = [...layerInputs(spec), ...layerOutputs(spec)];
  const k = new PtxWriter(
    'state',
    parameters.map(([, dtype]) => dtype),
    tiling.first.warps,
  );
  const state = new StatePhase(
    k,
    spec,
    tiling,
    Object.fromEntries(parameters.map(([name], i) => [name, k.pointer(i)])),
  );
  state.ask();
  state.run();
  return k;
}

/** The kernel of a layer, over layerInputs and LAYER_OUTPUTS. */
export function layerKernel(spec: LayerSpec, tiling: LayerTiling): TritonKernel {
  return layerWriter(spec, tiling).kernel(tiling.first.blocks);
}

/** Shape of the counters. */
export const COUNTERS = [COUNTER_WORDS] as const;
