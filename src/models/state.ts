/** RecurrentState (of Mamba-2: Mamba2State): what a model has read so far, as a value. */
import { ArgumentError, DisposedError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { quote } from '../base/quote.js';
import type { EngineState, StateArrays } from '../generation/engine.js';
import type { CausalLM } from './causal_lm.js';
import { readStateFile, writeStateFile } from '../engine/states/file.js';

const TEXTS = kinds.recordOf(kinds.anyText, 'an object of texts');

/**
 * What a model has read, row by row: recurrent states, the logits of the next token, and the ids that were fed. Its size
 * does not depend on how much was read (18.5 MiB a row for a model of 130 million parameters, float32). Made by
 * `model.prefill()`; `model.generate({ state, … })` goes on from it and moves it on. Owns device memory: dispose it.
 *
 * @example
 * const model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2');
 * const state = await model.prefill('It was a dark and stormy night');
 * const fork = await state.clone();
 * await model.generate({ input_ids: [[]], state: fork, max_new_tokens: 5 }); // `state` stays where it is
 */
export class RecurrentState implements EngineState {
  private disposed = false;

  /**
   * @param model whose state it is
   * @param inner the engine's own state; disposed of with this one
   * @param ids what was fed, per row; shorter than `seen` where it is not known
   */
  constructor(
    readonly model: CausalLM,
    private readonly inner: EngineState,
    private fedIds: readonly (readonly number[])[],
  ) {}

  /** The engine's state, for calls below model.generate(). It stays this one's. */
  get engine_state(): EngineState {
    if (this.disposed) throw new DisposedError('This state was disposed');
    return this.inner;
  }

  get batch(): number {
    return this.engine_state.batch;
  }

  /** Tokens fed so far, per row. */
  get seen(): readonly number[] {
    return this.engine_state.seen;
  }

  /** Ids fed so far, per row. */
  get ids(): readonly (readonly number[])[] {
    return this.fedIds;
  }

  /** Whether `ids` is all that was fed: not after a call that failed while it was writing. */
  get ids_known(): boolean {
    return this.seen.every((count, row) => count === this.fedIds[row]!.length);
  }

  /** Notes ids that were fed to the engine's state. @internal */
  noteFed(rows: readonly (readonly number[])[]): void {
    // no more than the state has seen: an abort leaves the rest out
    this.fedIds = this.fedIds.map((ids, row) => [...ids, ...rows[row]!].slice(0, this.seen[row]));
  }

  /** An independent copy. */
  async clone(): Promise<RecurrentState> {
    return new RecurrentState(this.model, await this.engine_state.clone(), this.fedIds);
  }

  /** A new state whose row i is row rows[i] of this one; repeats allowed. @throws ArgumentError or GenerationError for a row that is none */
  async select(rows: readonly number[]): Promise<RecurrentState> {
    const inner = await this.engine_state.select(rows);
    return new RecurrentState(
      this.model,
      inner,
      rows.map((row) => this.fedIds[row]!),
    );
  }

  toArrays(): Promise<StateArrays> {
    return this.engine_state.toArrays();
  }

  /**
   * Writes the state to a safetensors file that any engine of the same model reads. Written aside and renamed.
   * @param extra texts to keep with it
   * @throws SaveError; nothing half written is left
   */
  async save(file: string, extra: Record<string, string> = {}): Promise<void> {
    if (!TEXTS.ok(extra))
      throw new ArgumentError(`save(): extra is ${quote(extra)}; expected ${TEXTS.expected}.`, {
        option: 'extra',
        got: extra,
      });
    const arrays = await this.toArrays();
    await writeStateFile(file, this.model.weights, { arrays, ids: this.fedIds.map((ids) => [...ids]), extra });
  }

  /**
   * Reads a state that save() wrote: bit for bit, where the engine holds states in float32 (the default).
   * @throws CheckpointError when the file is damaged, or of another model (both values are named)
   * @example
   * const model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2');
   * await (await model.prefill([5, 6, 7])).save('prefix.safetensors');
   * const state = await Mamba2State.load(model, 'prefix.safetensors');
   */
  static async load(model: CausalLM, file: string): Promise<RecurrentState> {
    const { arrays, ids } = await readStateFile(file, model.weights);
    const engine = await model.engine();
    return new RecurrentState(model, await engine.fromArrays(arrays), ids);
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.inner.dispose();
  }
}
