/** Decoding through one compiled program: the default on the tensorflow backend. */
import { encodeFloat32 } from '../../base/stored_dtypes.js';
import { onGpu, compactMemory } from '../../runtime/index.js';
import { ArgumentError, DisposedError, GenerationError } from '../../base/errors.js';
import { checkIds } from '../../generation/ids.js';
import type { EngineSampling, EngineState, GenerationEngine, StateArrays } from '../../generation/engine.js';
import type { Program } from '../../jit/index.js';
import { checkEngineOptions, type CompiledEngineOptions, programOptions } from './options.js';
import { DeviceState, type StateKeeper } from '../states/device_state.js';
import { historyMask, uniformsOf } from './sampling_inputs.js';
import { buildDecodingProgram, COUNT, MAX_TOP_K, UNLIMITED } from './decoding_program.js';
import { functions, variables } from './names.js';
import { type StateVariable, stateVariables } from './program_states.js';
import type { NetworkWeights } from '../network_weights.js';
import { type HostState, hostStateOf, tensorsOf } from '../states/host_state.js';
import { segmentFor } from './segments.js';
import { checkStateArrays } from '../states/arrays.js';
import { samplesInProgram, samplingSettings } from './sampling.js';
import { Turns } from './turns.js';
import { VocabularyMasks } from './sampling_inputs.js';

export type { CompiledEngineOptions };

type Rest<T extends unknown[]> = T extends [unknown, ...infer R] ? R : never;
type PrefillOptions = NonNullable<Parameters<GenerationEngine['prefill']>[2]>;

export class CompiledEngine implements GenerationEngine, StateKeeper {
  readonly kind = 'compiled';
  private program: Program | null = null;
  private batches: number[];
  private readonly slots = new Map<number, DeviceState>();
  private readonly segments: readonly number[];
  private readonly masks = new VocabularyMasks();
  /** Batch sizes whose states are still the zeros of a fresh program. */
  private untouched = new Set<number>();
  /** Per batch size, how many tokens each row may still choose on the device. */
  private readonly leftKeys = new Map<number, string>();
  private disposed = false;
  /** Of the weights that the program was made of. */
  private version: number | null = null;
  /** The program has one slot a batch size and one set of masks: whole calls follow one another, however many are made at once. */
  private readonly turns = new Turns();
  /** Whether compactMemory() was called since the program was made. */
  private memoryCompacted = false;
  readonly preferred_block: number;
  readonly streamed_block?: number;
  private readonly fixedBlocks: boolean;

  /** @throws ArgumentError for an option that is none of what it may be */
  constructor(
    private readonly weights: NetworkWeights,
    private readonly options: CompiledEngineOptions = {},
  ) {
    checkEngineOptions(options);
    this.batches = [...new Set(options.batches ?? [1])];
    const { segments, block, countedBlocks } = programOptions(options, this.batches);
    this.segments = segments;
    this.preferred_block = block;
    this.fixedBlocks = !countedBlocks;
    if (this.fixedBlocks) this.streamed_block = this.preferred_block;
  }

  get vocab_size(): number {
    return this.weights.network.config.vocab_size;
  }

  async createState(batch: number): Promise<DeviceState> {
    if (!Number.isInteger(batch) || batch < 1)
      throw new ArgumentError(`state: batch is ${batch}, expected a positive integer`, { batch });
    return new DeviceState(this, batch);
  }

  async fromArrays(arrays: StateArrays): Promise<DeviceState> {
    const { network } = this.weights;
    const batch = checkStateArrays(network, arrays);
    const state = new DeviceState(this, batch, arrays.seen, arrays.fed);
    state.onHost = hostStateOf(network, arrays);
    return state;
  }

  toArrays(state: DeviceState, values: HostState | null): StateArrays {
    const tensors = tensorsOf(this.weights.network, state.fed, values);
    return { seen: [...state.seen], fed: [...state.fed], tensors };
  }

  inTurn<T>(work: () => T): Promise<T> {
    return this.turns.take(work);
  }

  /** @throws DisposedError for an engine whose program holds weights that have changed since */
  private alive(): void {
    if (this.version !== null && this.version !== this.weights.version) this.dispose();
    if (this.disposed)
      throw new DisposedError('This engine was disposed of: with its model, or because its weights changed', {});
  }

  /** The program, with functions for this batch size. */
  private async ready(batch: number): Promise<Program> {
    this.alive();
    if (this.program && this.batches.includes(batch)) return this.program;
    if (this.program) {
      // a loaded graph cannot grow: park what is resident and load one with the new size
      for (const state of this.slots.values()) this.evict(state);
      this.program.dispose();
      this.program = null;
    }
    this.version ??= this.weights.version;
    // kept once the program is: one that has no room must not be in the way of those after it
    const batches = this.batches.includes(batch) ? this.batches : [...this.batches, batch];
    const program = buildDecodingProgram(this.weights, programOptions(this.options, batches));
    this.program = program; // already: dispose() may come meanwhile
    try {
      await program.compile();
      this.alive();
    } catch (error) {
      program.dispose();
      this.program = null;
      this.alive();
      throw error;
    }
    this.memoryCompacted = false;
    this.masks.forget();
    this.batches = batches;
    this.untouched = new Set(batches);
    this.leftKeys.clear();
    return program;
  }

  private variables(batch: number): StateVariable[] {
    return stateVariables(this.weights.network, batch, this.options.state_dtype);
  }

  toHost(state: DeviceState): HostState {
    if (!state.resident)
      throw new GenerationError('internal: a state that is nowhere cannot be taken to the host', { id: state.id });
    if (this.version !== this.weights.version) this.dispose();
    const { program } = this;
    if (!program)
      throw new DisposedError(
        'This state went with its engine, which was disposed of: with the model, or because its weights changed',
        {},
      );
    return this.variables(state.batch).map(({ name }) => program.read(name) as Float32Array);
  }

  release(state: DeviceState): void {
    if (state.heirs.size === 0) this.free(state);
  }

  private free(state: DeviceState): void {
    if (this.slots.get(state.batch) === state) this.slots.delete(state.batch);
    state.resident = false;
  }

  /** Moves a resident state to the host, or drops it when nobody wants it any more. */
  private evict(state: DeviceState): void {
    const wanted = !state.disposed;
    if (wanted || state.heirs.size > 0) {
      const values = this.toHost(state);
      if (wanted) state.onHost = values;
      for (const heir of [...state.heirs]) heir.inherit(values, state.batch);
    }
    this.free(state);
  }

  /** Works on a state, alone, in the slot of its size. It is brought there anew each time: other calls may have come between. */
  private using<T>(
    state: EngineState,
    rows: number,
    work: (own: DeviceState, program: Program) => T | Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    return this.turns.take(async () => {
      signal?.throwIfAborted();
      const { own, program } = await this.settle(state, rows);
      return work(own, program);
    });
  }

  private async settle(state: EngineState, rows: number): Promise<{ own: DeviceState; program: Program }> {
    if (!(state instanceof DeviceState && state.isOf(this))) {
      throw new ArgumentError(
        'This state belongs to another engine: of another model, or of this one before its weights changed',
        { state },
      );
    }
    const own = state.alive();
    if (own.batch !== rows)
      throw new ArgumentError(`The state has ${own.batch} rows, got ${rows}`, { state: own.batch, got: rows });
    const program = await this.ready(own.batch);
    own.alive();
    if (own.origin) this.resolve(own, program);
    if (!own.resident) {
      const holder = this.slots.get(own.batch);
      if (holder) this.evict(holder);
      const variables = this.variables(own.batch);
      const zeros = this.untouched.delete(own.batch);
      if (own.onHost) {
        const onHost = own.onHost;
        variables.forEach(({ name, dtype }, i) =>
          program.assign(name, dtype === 'bfloat16' ? encodeFloat32(onHost[i]!, 'BF16') : onHost[i]!),
        );
      } else if (!zeros) {
        program.zero(variables.map(({ name }) => name));
      }
      own.onHost = null;
      own.resident = true;
      this.slots.set(own.batch, own);
    }
    // whoever asked for rows of this state gets them before it moves on
    own.settleHeirs();
    return { own, program };
  }

  /** Works out a selection: on the device when its origin is gone and still in the slot, else through the host. */
  private resolve(state: DeviceState, program: Program): void {
    const { state: origin, rows } = state.origin!;
    if (origin.origin) this.resolve(origin, program);
    if (origin.resident && origin.disposed && origin.batch === state.batch) {
      origin.settleHeirs(state);
      program.call(functions.select(state.batch), { rows: Int32Array.from(rows) });
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
    origin.settleHeirs();
    if (origin.disposed) this.free(origin);
  }

  async prefill(state: EngineState, rows: readonly Int32Array[], options: PrefillOptions = {}): Promise<void> {
    rows.forEach((row, i) => checkIds(row, i, this.vocab_size, 'prefill'));
    return this.using(state, rows.length, (own, program) => this.read(own, program, rows, options), options.signal);
  }

  private async read(
    own: DeviceState,
    program: Program,
    rows: readonly Int32Array[],
    options: PrefillOptions,
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
      program.call(functions.prefill(b, t), { ids, mask, ends });
      counts.forEach((count, i) => {
        own.seen[i]! += count;
        // logits are worked out at a row's end only: until then, as after an abort, it has none
        if (count > 0) own.fed[i] = ended[i]!;
      });
      begin += t;
      options.on_progress?.(Math.min(begin, total), total);
      // between segments the event loop may run: that is where an abort is seen, or a dispose
      if (begin < total) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async step(state: EngineState, tokens: Int32Array): Promise<void> {
    tokens.forEach((token, i) => checkIds([token], i, this.vocab_size, 'step'));
    return this.using(state, tokens.length, (own, program) => {
      program.call(functions.step(own.batch), { tokens });
      own.seen = own.seen.map((n) => n + 1);
      own.fed.fill(true);
    });
  }

  async logits(state: EngineState): Promise<Float32Array[]> {
    return this.using(state, state.batch, (own, program) => {
      this.checkFed(own);
      const flat = program.call(functions.logits(own.batch))['logits'] as Float32Array;
      const v = this.vocab_size;
      return Array.from({ length: own.batch }, (_, i) => flat.slice(i * v, (i + 1) * v));
    });
  }

  /** Once whoever decodes goes on with it: who waits for a first token does not wait for this. */
  private compactMemory(tokens: number): void {
    if (!this.memoryCompacted && tokens >= 8 && !onGpu()) compactMemory();
    this.memoryCompacted ||= tokens >= 8;
  }

  /** True when decode() can follow these settings; otherwise take logits out. */
  canSample(sampling: EngineSampling): boolean {
    if (!sampling.do_sample) return sampling.repetition_penalty === 1;
    return samplesInProgram(sampling, this.vocab_size, MAX_TOP_K);
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
    return this.using(state, state.batch, (own, program) =>
      this.choose(own, program, count, sampling, history, uniforms, finished),
    );
  }

  private choose(
    own: DeviceState,
    program: Program,
    ...[count, sampling, history, uniforms, finished]: Rest<Parameters<CompiledEngine['decode']>>
  ): Int32Array[] {
    this.checkFed(own);
    const b = own.batch;
    const alive = Float32Array.from({ length: b }, (_, i) => (finished?.[i] ? 0 : 1));
    this.masks.set(program, sampling, this.vocab_size);
    if (sampling.do_sample) program.assign(variables.history(b), historyMask(history, b, this.vocab_size));
    const [pad, eos] = [Int32Array.of(sampling.pad_token_id), new Set(sampling.eos)];
    const out = Array.from({ length: b }, () => new Int32Array(count).fill(sampling.pad_token_id));
    const take = (tokens: Int32Array, at: number): void => {
      for (let i = 0; i < b; i++) {
        if (!alive[i]) continue;
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
        program,
        b,
        alive.map((x) => x * (limited ? block : UNLIMITED)),
      );
      const counted: Record<string, number> = loop && !this.fixedBlocks ? { [COUNT]: block } : {};
      const result = sampling.do_sample
        ? program.call(loop ? functions.sampleLoop(b) : functions.sample(b), {
            pad,
            uniform: uniformsOf(uniforms!, at, block, loop ? this.preferred_block : 1), // [block, b]
            ...counted,
            settings: samplingSettings(sampling),
          })
        : program.call(loop ? functions.greedyLoop(b) : functions.greedy(b), { pad, ...counted });
      const tokens = result['token'] as Int32Array; // [block, b]
      for (let k = 0; k < block; k++) take(tokens.subarray(k * b, (k + 1) * b), at + k);
      at += block;
      this.leftKeys.set(b, limited ? '' : alive.map((x) => x * UNLIMITED).join());
    }
    this.compactMemory(at);
    return out;
  }

  /** Uploads how many tokens rows may choose, unless the device already knows: an upload costs about as much as a small step. */
  private setLeft(program: Program, batch: number, left: Float32Array): void {
    const known = this.leftKeys.get(batch) === left.join();
    this.leftKeys.delete(batch); // until the call has ended: it may fail
    if (!known) program.assign(variables.left(batch), left);
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
    this.program?.dispose();
    this.program = null;
    this.slots.clear();
  }
}
