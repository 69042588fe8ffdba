import type { EngineSampling, EngineState, GenerationEngine, StateArrays } from '../../src/generation/index.js';

/** A state that simply remembers the ids it was fed. */
export class ToyState implements EngineState {
  disposed = false;
  constructor(
    private readonly engine: ToyEngine,
    readonly rows: number[][],
  ) {
    engine.live++;
  }
  get batch(): number {
    return this.rows.length;
  }
  get seen(): number[] {
    return this.rows.map((row) => row.length);
  }
  async clone(): Promise<ToyState> {
    return this.select(this.rows.map((_, i) => i));
  }
  async select(rows: readonly number[]): Promise<ToyState> {
    if (this.disposed) throw new Error('select() of a disposed state');
    return new ToyState(
      this.engine,
      rows.map((i) => {
        if (this.rows[i] === undefined) throw new Error(`no row ${i} to select`);
        return this.rows[i].slice();
      }),
    );
  }
  async toArrays(): Promise<StateArrays> {
    const longest = Math.max(...this.seen);
    const data = Float32Array.from(this.rows.flatMap((row) => Array.from({ length: longest }, (_, i) => row[i] ?? -1)));
    return {
      seen: this.seen,
      fed: this.seen.map((n) => n > 0),
      tensors: { ids: { shape: [this.batch, longest], data } },
    };
  }
  dispose(): void {
    if (this.disposed) throw new Error('a state was disposed of twice');
    this.disposed = true;
    this.engine.live--;
  }
}

/**
 * A model in plain loops whose logits are a function of all ids so far. With `block`, it samples by itself, by sorting
 * rather than as the loop does, and takes nothing but what EngineSampling says.
 */
export class ToyEngine implements GenerationEngine {
  readonly kind = 'eager';
  readonly preferred_block?: number;
  readonly decode?: NonNullable<GenerationEngine['decode']>;
  /** States that are not disposed of. */
  live = 0;
  /** Calls of each method. */
  readonly calls = { prefill: 0, step: 0, logits: 0, decode: 0 };

  constructor(
    readonly vocab_size: number,
    readonly logitsOf: (ids: readonly number[]) => Float32Array,
    options: { block?: number } = {},
  ) {
    if (options.block !== undefined) {
      this.preferred_block = options.block;
      this.decode = this.sampleBlock.bind(this);
    }
  }

  async createState(batch: number): Promise<ToyState> {
    return new ToyState(
      this,
      Array.from({ length: batch }, () => []),
    );
  }
  async fromArrays({ seen, tensors }: StateArrays): Promise<ToyState> {
    const { shape, data } = tensors.ids!;
    return new ToyState(
      this,
      seen.map((count, i) => Array.from(data.subarray(i * shape[1]!, i * shape[1]! + count))),
    );
  }
  async prefill(
    state: EngineState,
    rows: readonly Int32Array[],
    options: { signal?: AbortSignal; on_progress?: (done: number, total: number) => void } = {},
  ): Promise<void> {
    this.calls.prefill++;
    options.signal?.throwIfAborted();
    const { rows: into } = this.check(state);
    if (rows.length !== into.length) throw new Error(`${rows.length} rows for a state of ${into.length}`);
    rows.forEach((ids, i) => into[i]!.push(...ids));
    options.on_progress?.(1, 1);
    await Promise.resolve();
  }
  async step(state: EngineState, tokens: Int32Array): Promise<void> {
    this.calls.step++;
    const { rows } = this.check(state);
    if (tokens.length !== rows.length) throw new Error(`${tokens.length} tokens for ${rows.length} rows`);
    rows.forEach((row, i) => row.push(tokens[i]!));
    await Promise.resolve();
  }
  async logits(state: EngineState): Promise<Float32Array[]> {
    this.calls.logits++;
    return this.check(state).rows.map((row) => Float32Array.from(this.logitsOf(row)));
  }

  private check(state: EngineState): ToyState {
    if (!(state instanceof ToyState) || state.disposed) throw new Error('a state that was disposed of is in use');
    for (const row of state.rows) {
      for (const id of row) if (!(id >= 0 && id < this.vocab_size)) throw new Error(`id ${id} was fed`);
    }
    return state;
  }

  private async sampleBlock(
    state: EngineState,
    count: number,
    s: EngineSampling,
    history: readonly Int32Array[],
    uniforms?: readonly Float32Array[],
    finished?: readonly boolean[],
  ): Promise<Int32Array[]> {
    this.calls.decode++;
    const { rows } = this.check(state);
    return rows.map((row, b) => {
      let ended = finished?.[b] ?? false;
      const past = [...history[b]!];
      return Int32Array.from({ length: count }, (_, k) => {
        if (ended) return s.pad_token_id;
        let scores = [...this.logitsOf(row)];
        if (s.repetition_penalty !== 1) {
          scores = scores.map((x, i) =>
            past.includes(i) ? (x < 0 ? x * s.repetition_penalty : x / s.repetition_penalty) : x,
          );
        }
        for (const id of s.suppress) scores[id] = -Infinity;
        const id = s.do_sample ? this.pick(scores, s, uniforms![b]![k]!) : scores.indexOf(Math.max(...scores));
        row.push(id);
        past.push(id);
        ended = s.eos.includes(id);
        return id;
      });
    });
  }

  private pick(scores: number[], s: EngineSampling, uniform: number): number {
    const heat = scores.map((x) => x / s.temperature);
    let best = [...heat.keys()].filter((i) => heat[i]! > -Infinity).sort((a, b) => heat[b]! - heat[a]! || b - a);
    const mass = (ids: number[]): number => ids.reduce((a, i) => a + Math.exp(heat[i]!), 0);
    if (s.top_k > 0) best = best.filter((i) => heat[i]! >= heat[best[Math.min(s.top_k, best.length) - 1]!]!);
    if (s.top_p < 1) {
      const all = mass(best);
      best = best.filter((_, k) => mass(best.slice(0, k)) / all < s.top_p);
    }
    if (s.min_p !== null) best = best.filter((i) => Math.exp(heat[i]! - heat[best[0]!]!) >= s.min_p!);
    best.sort((a, b) => a - b);
    const total = mass(best);
    return best.find((_, k) => mass(best.slice(0, k + 1)) > uniform * total) ?? best.at(-1)!;
  }
}

/** Logits that look random and depend on every id and its place. */
export function hashedLogits(vocab_size: number, spread = 6): (ids: readonly number[]) => Float32Array {
  const mix = (h: number, v: number): number => {
    h = Math.imul(h ^ v, 0x9e3779b1);
    return (h ^ (h >>> 15)) >>> 0;
  };
  return (ids) => {
    let h = 0x12345;
    for (const id of ids) h = mix(mix(h, id + 1), 77);
    return Float32Array.from({ length: vocab_size }, (_, i) => (mix(mix(h, i + 1), 99) / 2 ** 32 - 0.5) * spread);
  };
}

/** Logits of a model that writes `script` after a prompt of the given length, and repeats its last id after that. */
export function scriptedLogits(
  vocab_size: number,
  prompt_length: number,
  script: readonly number[],
): (ids: readonly number[]) => Float32Array {
  return (ids) => {
    const logits = new Float32Array(vocab_size);
    logits[script[Math.min(Math.max(0, ids.length - prompt_length), script.length - 1)]!] = 9;
    return logits;
  };
}
