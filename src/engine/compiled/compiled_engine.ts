/** Decoding through one compiled program: the default on the tensorflow backend. */
import { letOthersRun } from '../../base/async.js';
import { inPieces } from '../../base/pieces.js';
import { encodeFloat32 } from '../../base/stored_dtypes.js';
import { onGpu, compactMemory } from '../../runtime/index.js';
import { ArgumentError, DisposedError, GenerationError } from '../../base/errors.js';
import { checkIds } from '../../generation/ids.js';
import { noChoice } from '../../generation/scores.js';
import type { DecodingRows } from '../../generation/decoding_rows.js';
import type {
  EngineSampling,
  EngineState,
  GenerationEngine,
  PrefillReading,
  StateArrays,
  StateFiles,
} from '../../generation/engine.js';
import { type CompiledEngineOptions, ENGINE_TABLE, programOptions } from './options.js';
import { CompiledRows, type RowsKeeper } from './compiled_rows.js';
import { DeviceState, type StateKeeper } from '../states/device_state.js';
import { historyMask, uniformsOf } from './sampling_inputs.js';
import { UNLIMITED } from './decoding_program.js';
import { handOutRows } from '../hidden_rows.js';
import { COUNT, functions, variables } from './names.js';
import { type Loaded, Programs } from './programs.js';
import { type StateVariable, stateVariables } from './program_states.js';
import type { NetworkWeights } from '../network_weights.js';
import { type HostState, hostStateOf, tensorsOf } from '../states/host_state.js';
import { logitsBytes, stateBytes } from '../memory.js';
import { segmentFor } from './segments.js';
import { checkStateArrays } from '../states/arrays.js';
import { CHOICE, samplingSettings } from './sampling.js';
import { stateFiles } from '../states/file.js';
import { Turns } from '../../base/turns.js';

export type { CompiledEngineOptions };

/** On a CPU each row of a step costs: twice as many each time. On a GPU hardly. */
const rowSizes = (count: number): number[] =>
  onGpu() ? [count] : Array.from({ length: Math.ceil(Math.log2(count)) }, (_, i) => 2 ** i);

type Rest<T extends unknown[]> = T extends [unknown, ...infer R] ? R : never;

export class CompiledEngine implements GenerationEngine, StateKeeper {
  readonly kind = 'compiled';
  private readonly programs: Programs;
  private readonly slots = new Map<number, DeviceState>();
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

  /** @throws ArgumentError for an option that is none of what it may be */
  constructor(
    private readonly weights: NetworkWeights,
    private readonly options: CompiledEngineOptions = {},
  ) {
    ENGINE_TABLE.check(options);
    this.state_files = stateFiles(weights);
    const { segments, block, countedBlocks } = programOptions(options, []);
    const park = async (batch: number): Promise<void> => {
      const state = this.slots.get(batch);
      if (state) await this.evict(state);
    };
    this.programs = new Programs(weights, options, park, async (program) => this.rows?.park(program));
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
    return new DeviceState(this, batch);
  }

  async fromArrays(arrays: StateArrays): Promise<DeviceState> {
    const { network } = this.weights;
    const batch = checkStateArrays(network, arrays);
    const { seen, fed } = arrays;
    const values = await inPieces(hostStateOf(network, arrays));
    const state = new DeviceState(this, batch, seen, fed);
    state.onHost = values;
    return state;
  }

  async toArrays(state: DeviceState, values: HostState | null): Promise<StateArrays> {
    const { seen, fed } = state;
    const tensors = await inPieces(tensorsOf(this.weights.network, fed, values));
    return { seen: [...seen], fed: [...fed], tensors };
  }

  inTurn<T>(work: () => T | Promise<T>): Promise<T> {
    return this.turns.take(work);
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

  private variables(batch: number): StateVariable[] {
    return stateVariables(this.weights.network, batch, this.options.state_dtype);
  }

  async toHost(state: DeviceState): Promise<HostState> {
    if (!state.resident)
      throw new GenerationError('internal: a state that is nowhere cannot be taken to the host', { id: state.id });
    if (this.version !== this.weights.version) this.dispose();
    const program = this.programs.of(state.batch)?.program;
    if (!program)
      throw new DisposedError(
        'This state went with its engine, which was disposed of: with the model, or because its weights changed',
        {},
      );
    return (await program.readAll(this.variables(state.batch).map(({ name }) => name))) as HostState;
  }

  release(state: DeviceState): void {
    if (state.heirs.size === 0) this.free(state);
  }

  private free(state: DeviceState): void {
    if (this.slots.get(state.batch) === state) this.slots.delete(state.batch);
    state.resident = false;
  }

  /** Moves a resident state to the host, or drops it when nobody wants it any more. */
  private async evict(state: DeviceState): Promise<void> {
    if (!state.disposed || state.heirs.size > 0) {
      const values = await this.toHost(state);
      // it may have been disposed of meanwhile
      if (!state.disposed) state.onHost = values;
      for (const heir of [...state.heirs]) heir.inherit(values, state.batch);
    }
    this.free(state);
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
      const { own, loaded } = await this.settle(state, rows);
      return work(own, loaded);
    });
  }

  private async settle(state: EngineState, rows: number): Promise<{ own: DeviceState; loaded: Loaded }> {
    if (!(state instanceof DeviceState && state.isOf(this))) {
      throw new ArgumentError(
        'This state belongs to another engine: of another model, or of this one before its weights changed',
        { state },
      );
    }
    const own = state.alive();
    if (own.batch !== rows)
      throw new ArgumentError(`The state has ${own.batch} rows, got ${rows}`, { state: own.batch, got: rows });
    const loaded = await this.ready(own.batch);
    const { program } = loaded;
    own.alive();
    if (own.origin) await this.resolve(own, loaded);
    own.alive();
    if (!own.resident) {
      const holder = this.slots.get(own.batch);
      if (holder) await this.evict(holder);
      const variables = this.variables(own.batch);
      const zeros = loaded.untouched.delete(own.batch);
      if (own.onHost) {
        const onHost = own.onHost;
        const bytes = (i: number, narrow: boolean): ArrayBufferView =>
          narrow ? encodeFloat32(onHost[i]!, 'BF16') : onHost[i]!;
        const values = variables.map(({ name, dtype }, i) => [name, () => bytes(i, dtype === 'bfloat16')] as const);
        await program.assignAll(Object.fromEntries(values));
      } else if (!zeros) {
        await program.zeroAll(variables.map(({ name }) => name));
      }
      own.alive();
      own.onHost = null;
      own.resident = true;
      this.slots.set(own.batch, own);
    }
    // whoever asked for rows of this state gets them before it moves on
    await own.settleHeirs();
    return { own: own.alive(), loaded };
  }

  /** Works out a selection: on the device when its origin is gone and still in the slot, else through the host. */
  private async resolve(state: DeviceState, loaded: Loaded): Promise<void> {
    const { state: origin, rows } = state.origin!;
    if (origin.origin) {
      await this.resolve(origin, loaded);
      // one that was disposed of meanwhile has left its place in the line to who waits for it
      return state.origin ? this.resolve(state, loaded) : undefined;
    }
    if (origin.resident && origin.disposed && origin.batch === state.batch) {
      await origin.settleHeirs(state);
      await loaded.program.call(functions.select(state.batch), { rows: Int32Array.from(rows) });
      state.detach();
      origin.resident = false;
      state.resident = true;
      this.slots.set(state.batch, state);
      return;
    }
    if (!origin.resident && !origin.onHost) {
      state.detach(); // rows of a state that was never fed: zeros
      return;
    }
    await origin.settleHeirs();
    if (origin.disposed) this.free(origin);
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
    const total = Math.max(...rows.map((row) => row.length));
    for (let begin = 0; begin < total;) {
      options.signal?.throwIfAborted();
      this.alive();
      own.alive();
      const t = segmentFor(total - begin, this.segments);
      const ids = new Int32Array(b * t);
      const mask = new Float32Array(b * t);
      const ends = new Float32Array(b * t);
      const counts = rows.map((row) => Math.min(Math.max(row.length - begin, 0), t));
      const ended = rows.map((row, i) => begin + counts[i]! === row.length);
      rows.forEach((row, i) => {
        ids.set(row.subarray(begin, begin + counts[i]!), i * t);
        mask.fill(1, i * t, i * t + counts[i]!);
        if (counts[i]! > 0 && ended[i]) ends[i * t + counts[i]! - 1] = 1;
      });
      const { on_hidden: take } = options;
      const out = await program.call(functions.prefill(b, t), { ids, mask, ends }, take ? ['fed', 'hidden'] : ['fed']);
      counts.forEach((count, i) => {
        own.seen[i]! += count;
        // logits are worked out at a row's end only: until then, as after an abort, it has none
        if (count > 0) own.fed[i] = ended[i]!;
      });
      if (take)
        handOutRows(out['hidden'] as Float32Array, counts, t, (row, hidden, count) => take(row, hidden, begin, count));
      begin += t;
      await options.on_progress?.(Math.min(begin, total), total);
      // between segments the event loop may run: that is where an abort is seen, or a dispose
      if (begin < total) await letOthersRun();
    }
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

  async openRows(count: number, block = this.preferred_block, sizes = rowSizes(count)): Promise<DecodingRows> {
    this.alive();
    if (this.rows)
      throw new ArgumentError('This engine has a scheduler already: close() that one first.', { rows: this.rows.rows });
    const all = [...new Set([...sizes.filter((size) => size < count), count])].sort((a, b) => a - b);
    this.programs.openRows({ sizes: all, block });
    this.rows = new CompiledRows(this.rowsKeeper(), all, block);
    return this.rows;
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
      withRows: (work) => this.turns.take(async () => work(await ready())),
      withSlot: (state, work) =>
        this.turns.take(async () => {
          await ready();
          const { own, loaded } = await this.settle(state, 1);
          return work(own, loaded);
        }),
      fillSlot: (seen, work) =>
        this.turns.take(async () => {
          const loaded = await ready();
          const holder = this.slots.get(1);
          if (holder) await this.evict(holder);
          loaded.untouched.delete(1);
          await work(loaded);
          const state = new DeviceState(this, 1, [seen], [true]);
          state.resident = true;
          this.slots.set(1, state);
          return state;
        }),
      stateVariables: (place, rows) => stateVariables(this.weights.network, rows, this.options.state_dtype, place),
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
    this.slots.clear();
  }
}
