/** Decoding through one compiled program: the default on the tensorflow backend. */
import { inPieces } from '../../base/pieces.js';
import { compactMemory, largestGpuMemory, onGpu } from '../../runtime/index.js';
import { totalMemory } from '../../base/memory.js';
import { ArgumentError, DisposedError, GenerationError } from '../../base/errors.js';
import { checkIds } from '../../generation/ids.js';
import { noChoice } from '../../generation/scores.js';
import type { DecodingRows, RowsOptions } from '../../generation/decoding_rows.js';
import type {
  EngineSampling,
  EngineState,
  GenerationEngine,
  PrefillReading,
  StateArrays,
  StateFiles,
} from '../../generation/engine.js';
import { type CompiledEngineOptions, ENGINE_TABLE, programOptions } from './options.js';
import { placeCounts } from './device_places.js';
import { CompiledRows, type RowsKeeper } from './compiled_rows.js';
import type { DeviceState } from '../states/device_state.js';
import { StateSlots } from './state_slots.js';
import { historyMask, uniformsOf } from './sampling_inputs.js';
import { UNLIMITED } from './decoding_program.js';
import { handOutRows } from '../hidden_rows.js';
import { COUNT, functions, variables } from './names.js';
import { type Loaded, Programs } from './programs.js';
import { type StateLayout, stateLayout } from './divided_states.js';
import { isParallel, type Spread } from '../placement/spread.js';
import { parallelLayout } from './parallel_states.js';
import type { NetworkWeights } from '../network_weights.js';
import { hostStateOf } from '../states/host_state.js';
import { logitsBytes, stateBytes } from '../memory.js';
import { readerSegments, readSegments } from './segments.js';
import { checkStateArrays } from '../states/arrays.js';
import { CHOICE, samplingSettings } from './sampling.js';
import { stateFiles } from '../states/file.js';
import { Turns } from '../../base/turns.js';

export type { CompiledEngineOptions };

/** On a CPU each row of a step costs: twice as many each time. On a GPU hardly. */
const rowSizes = (count: number, divided: boolean): number[] =>
  onGpu() || divided ? [count] : Array.from({ length: Math.ceil(Math.log2(count)) }, (_, i) => 2 ** i);

type Rest<T extends unknown[]> = T extends [unknown, ...infer R] ? R : never;

export class CompiledEngine implements GenerationEngine {
  readonly kind = 'compiled';
  private readonly programs: Programs;
  private readonly slots: StateSlots;
  readonly segments: readonly number[];
  private disposed = false;
  /** Of the weights that the program was made of. */
  private version: number | null = null;
  /** There is one slot a batch size, and a program has one set of masks: whole calls follow one another, however many are made at once. */
  private readonly turns = new Turns();
  /** Of the scheduler that runs over this engine, if one does. */
  private rows: CompiledRows | null = null;
  readonly preferred_block: number;
  readonly streamed_block?: number;
  readonly state_files: StateFiles;
  private readonly fixedBlocks: boolean;
  private readonly layout: StateLayout;

  /**
   * @param spread where the model lies on several devices
   * @throws ArgumentError for an option that is none of what it may be
   */
  constructor(
    private readonly weights: NetworkWeights,
    private readonly options: CompiledEngineOptions = {},
    private readonly spread: Spread | null = null,
  ) {
    ENGINE_TABLE.check(options);
    this.state_files = stateFiles(weights);
    const { segments, block, countedBlocks } = programOptions(options, [], spread);
    const dtype = options.state_dtype ?? 'float32';
    this.layout = isParallel(spread)
      ? parallelLayout(weights.network, dtype, spread.plan)
      : stateLayout(weights.network, dtype, spread);
    const parking = {
      slot: (batch: number): Promise<void> => this.slots.emptySlot(batch),
      others: async (loaded: Loaded): Promise<void> => {
        await this.slots.parkPlaces(loaded);
        await this.rows?.park(loaded.program);
      },
    };
    this.programs = new Programs(weights, options, parking, spread);
    this.slots = new StateSlots({
      weights,
      turns: this.turns,
      layout: this.layout,
      of: (batch) => this.programs.of(batch),
      ready: (batch) => this.ready(batch),
      notice: () => {
        if (this.version !== this.weights.version) this.dispose();
      },
    });
    this.segments = segments;
    this.preferred_block = block;
    this.fixedBlocks = !countedBlocks;
    if (this.fixedBlocks) this.streamed_block = this.preferred_block;
  }

  get vocab_size(): number {
    return this.weights.network.config.vocab_size;
  }

  /** States before and after their rows are repeated or reordered, and logits as variables and as arrays; on a GPU the arrays. */
  memoryFor(rows: number): number {
    const { network } = this.weights;
    const logits = logitsBytes(network);
    if (onGpu() || this.programs.of(rows)) return 2 * rows * logits;
    return rows * (2 * stateBytes(network, this.options.state_dtype) + 4 * logits);
  }

  async createState(batch: number): Promise<DeviceState> {
    if (!Number.isInteger(batch) || batch < 1)
      throw new ArgumentError(`state: batch is ${batch}, expected a positive integer`, { batch });
    return this.slots.create(batch);
  }

  async fromArrays(arrays: StateArrays): Promise<DeviceState> {
    const { network } = this.weights;
    const batch = checkStateArrays(network, arrays);
    const { seen, fed } = arrays;
    const values = await inPieces(hostStateOf(network, arrays));
    const state = this.slots.create(batch, seen, fed);
    state.onHost = values;
    return state;
  }

  /** @throws DisposedError for an engine whose program holds weights that have changed since */
  private alive(): void {
    if (this.version !== null && this.version !== this.weights.version) this.dispose();
    if (this.disposed)
      throw new DisposedError('This engine was disposed of: with its model, or because its weights changed', {});
  }

  /** The program with functions for this batch size. */
  private async ready(batch: number): Promise<Loaded> {
    this.alive();
    this.version ??= this.weights.version;
    return this.programs.ready(batch, () => this.alive());
  }

  /** Works on a state, alone, in the slot of its size. It is brought there anew each time: other calls may have come between. */
  private using<T>(
    state: EngineState,
    rows: number,
    work: (own: DeviceState, loaded: Loaded) => T | Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    return this.turns.take(async () => {
      signal?.throwIfAborted();
      const { own, loaded } = await this.slots.settle(state, rows);
      return work(own, loaded);
    });
  }

  async prefill(state: EngineState, rows: readonly Int32Array[], options: PrefillReading = {}): Promise<void> {
    rows.forEach((row, i) => checkIds(row, i, this.vocab_size, 'prefill'));
    return this.using(state, rows.length, (own, loaded) => this.read(own, loaded, rows, options), options.signal);
  }

  private async read(
    own: DeviceState,
    { program }: Loaded,
    rows: readonly Int32Array[],
    options: PrefillReading,
  ): Promise<void> {
    const b = own.batch;
    const { on_hidden: take } = options;
    await readSegments(rows, this.segments, {
      before: () => {
        options.signal?.throwIfAborted();
        this.alive();
        own.alive();
      },
      call: (t, inputs) => program.call(functions.prefill(b, t), inputs, take ? ['fed', 'hidden'] : ['fed']),
      after: async (out, { counts, ended, t, begin, done, total }) => {
        counts.forEach((count, i) => {
          own.seen[i]! += count;
          // logits are worked out at a row's end only: until then, as after an abort, it has none
          if (count > 0) own.fed[i] = ended[i]!;
        });
        if (take)
          handOutRows(out['hidden'] as Float32Array, counts, t, (row, hidden, count) =>
            take(row, hidden, begin, count),
          );
        await options.on_progress?.(done, total);
      },
    });
  }

  async step(state: EngineState, tokens: Int32Array): Promise<void> {
    tokens.forEach((token, i) => checkIds([token], i, this.vocab_size, 'step'));
    return this.using(state, tokens.length, async (own, { program }) => {
      await program.call(functions.step(own.batch), { tokens });
      own.seen = own.seen.map((n) => n + 1);
      own.fed.fill(true);
    });
  }

  async logits(state: EngineState): Promise<Float32Array[]> {
    return this.using(state, state.batch, async (own, { program }) => {
      this.checkFed(own);
      const flat = (await program.call(functions.logits(own.batch)))['logits'] as Float32Array;
      const v = this.vocab_size;
      return Array.from({ length: own.batch }, (_, i) => flat.slice(i * v, (i + 1) * v));
    });
  }

  /** Once whoever decodes goes on with it: who waits for a first token does not wait for this. */
  private compactMemory(loaded: Loaded, tokens: number): void {
    if (!loaded.memoryCompacted && tokens >= 8 && !onGpu()) compactMemory();
    loaded.memoryCompacted ||= tokens >= 8;
  }

  /** True when decode() can follow these settings; otherwise take logits out. */
  canSample(sampling: EngineSampling): boolean {
    return sampling.do_sample || sampling.repetition_penalty === 1;
  }

  async decode(
    state: EngineState,
    count: number,
    sampling: EngineSampling,
    history: readonly Int32Array[],
    uniforms?: readonly Float32Array[],
    finished?: readonly boolean[],
  ): Promise<Int32Array[]> {
    if (!this.canSample(sampling))
      throw new GenerationError('decode: these settings cannot be followed inside the program', { sampling });
    if (sampling.do_sample && (uniforms?.length !== state.batch || uniforms.some((row) => row.length < count))) {
      throw new ArgumentError(`decode: expected ${count} uniform numbers for each of ${state.batch} rows`, {});
    }
    return this.using(state, state.batch, (own, loaded) =>
      this.choose(own, loaded, count, sampling, history, uniforms, finished),
    );
  }

  private async choose(
    own: DeviceState,
    loaded: Loaded,
    ...[count, sampling, history, uniforms, finished]: Rest<Parameters<CompiledEngine['decode']>>
  ): Promise<Int32Array[]> {
    this.checkFed(own);
    const { program } = loaded;
    const b = own.batch;
    const alive = Float32Array.from({ length: b }, (_, i) => (finished?.[i] ? 0 : 1));
    loaded.masks.set(program, sampling, this.vocab_size);
    // without a penalty nobody asks what a row has said
    if (sampling.do_sample && sampling.repetition_penalty !== 1)
      program.assign(variables.history(b), historyMask(history, b, this.vocab_size));
    const [pad, eos] = [Int32Array.of(sampling.pad_token_id), new Set(sampling.eos)];
    const out = Array.from({ length: b }, () => new Int32Array(count).fill(sampling.pad_token_id));
    const take = (tokens: Int32Array, at: number): void => {
      for (let i = 0; i < b; i++) {
        if (!alive[i]) continue;
        if (tokens[i]! < 0) throw noChoice(tokens[i] === CHOICE.invalid, i, own.seen[i]!);
        out[i]![at] = tokens[i]!;
        own.seen[i]!++;
        if (eos.has(tokens[i]!)) alive[i] = 0;
      }
    };
    let at = 0;
    while (at < count && alive.some((x) => x > 0)) {
      const block = Math.min(this.preferred_block, count - at);
      const loop = block > 1;
      const limited = loop && this.fixedBlocks && block < this.preferred_block;
      this.setLeft(
        loaded,
        b,
        alive.map((x) => x * (limited ? block : UNLIMITED)),
      );
      const counted: Record<string, number> = loop && !this.fixedBlocks ? { [COUNT]: block } : {};
      const result = sampling.do_sample
        ? await program.call(loop ? functions.sampleLoop(b) : functions.sample(b), {
            pad,
            uniform: uniformsOf(uniforms!, at, block, loop ? this.preferred_block : 1), // [block, b]
            ...counted,
            settings: samplingSettings(sampling),
          })
        : await program.call(loop ? functions.greedyLoop(b) : functions.greedy(b), { pad, ...counted });
      const tokens = result['token'] as Int32Array; // [block, b]
      own.alive(); // dispose() may have come meanwhile
      for (let k = 0; k < block; k++) take(tokens.subarray(k * b, (k + 1) * b), at + k);
      at += block;
      loaded.leftKeys.set(b, limited ? '' : alive.map((x) => x * UNLIMITED).join());
    }
    this.compactMemory(loaded, at);
    return out;
  }

  /** Uploads how many tokens rows may choose, unless the device already knows: an upload costs about as much as a small step. */
  private setLeft({ program, leftKeys }: Loaded, batch: number, left: Float32Array): void {
    const known = leftKeys.get(batch) === left.join();
    leftKeys.delete(batch); // until the call has ended: it may fail
    if (!known) program.assign(variables.left(batch), left);
  }

  async openRows(count: number, options: RowsOptions = {}): Promise<DecodingRows> {
    this.alive();
    if (this.rows)
      throw new ArgumentError('This engine has a scheduler already: close() that one first.', { rows: this.rows.rows });
    const gpu = onGpu();
    const { block = this.preferred_block, sizes = rowSizes(count, this.spread !== null) } = options;
    const all = [...new Set([...sizes.filter((size) => size < count), count])].sort((a, b) => a - b);
    const beside =
      this.spread && !isParallel(this.spread)
        ? this.nothingBeside(options)
        : placeCounts(
            count,
            this.rowBytes,
            options,
            gpu ? { of: 'gpu', bytes: largestGpuMemory() } : { of: 'cpu', bytes: totalMemory() },
          );
    const readerLengths = beside.readers > 0 ? readerSegments(this.segments, gpu) : [];
    const rows = { sizes: all, block, ...beside, readerSegments: readerLengths };
    this.programs.openRows(rows);
    this.rows = new CompiledRows(this.rowsKeeper(), rows);
    return this.rows;
  }

  /** Over several devices states wait on the host, and prompts are read one after another. @throws ArgumentError where more was asked for */
  private nothingBeside({ readers = 0, device_bytes }: RowsOptions): { readers: number; kept: number } {
    if (readers <= 1 && !device_bytes) return { readers: 0, kept: 0 };
    const [option, got] = readers > 1 ? ['readers', readers] : ['device_bytes', device_bytes];
    throw new ArgumentError(
      `${option} is ${got}, and the model lies on several devices (device_map): prompts are read one after another there, and states wait on the host.`,
      { option, got },
    );
  }

  /** Bytes of the state of one row on the device, logits included. */
  private get rowBytes(): number {
    const { network } = this.weights;
    return stateBytes(network, this.options.state_dtype) + logitsBytes(network);
  }

  private rowsKeeper(): RowsKeeper {
    const ready = async (): Promise<Loaded> => {
      this.alive();
      this.version ??= this.weights.version;
      return this.programs.readyRows(() => this.alive());
    };
    return {
      vocab_size: this.vocab_size,
      counted: !this.fixedBlocks,
      row_bytes: this.rowBytes,
      slots: this.slots,
      withRows: (work) => this.turns.take(async () => work(await ready())),
      alive: () => this.alive(),
      stateVariables: (place, rows) => this.layout.variables(rows, place),
      closeRows: (rows) => {
        if (this.rows !== rows) return;
        this.rows = null;
        this.programs.openRows(null);
      },
    };
  }

  private checkFed(state: DeviceState): void {
    const row = state.fed.indexOf(false);
    if (row >= 0)
      throw new GenerationError(
        `logits: row ${row} has none: it was fed no token, or its prefill was aborted. Feed it at least one token.`,
        { row },
      );
  }

  dispose(): void {
    this.disposed = true;
    this.programs.dispose();
    this.slots.forget();
  }
}
