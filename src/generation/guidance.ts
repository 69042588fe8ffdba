import type { EngineState, GenerationEngine } from './engine.js';
import { logSoftmax } from './scores.js';

/**
 * Classifier-free guidance (arXiv:2306.17806; transformers' UnbatchedClassifierFreeGuidanceLogitsProcessor): scores move
 * from those after a negative prompt towards those after the prompt, and beyond for a scale above 1. The negative
 * prompt has a state of its own, which gets the same new tokens.
 */
export class Guidance {
  private constructor(
    private readonly engine: GenerationEngine,
    private readonly scale: number,
    private state: EngineState,
  ) {}

  static async create(
    engine: GenerationEngine,
    scale: number,
    negativePrompts: readonly Int32Array[],
    signal?: AbortSignal,
  ): Promise<Guidance> {
    const state = await engine.createState(negativePrompts.length);
    try {
      await engine.prefill(state, negativePrompts, { signal });
    } catch (error) {
      state.dispose();
      throw error;
    }
    return new Guidance(engine, scale, state);
  }

  /** The logits after the negative prompts, as log-probabilities, to be given to apply(). */
  async unconditional(): Promise<Float32Array[]> {
    const rows = await this.engine.logits(this.state);
    rows.forEach(logSoftmax);
    return rows;
  }

  /** Turns logits into guided log-probabilities, in place. */
  apply(scores: Float32Array, unconditional: Float32Array): void {
    logSoftmax(scores);
    for (let i = 0; i < scores.length; i++) {
      scores[i] = this.scale * (scores[i]! - unconditional[i]!) + unconditional[i]!;
    }
  }

  step(tokens: Int32Array): Promise<void> {
    return this.engine.step(this.state, tokens);
  }

  /** Rows reordered, repeated or dropped, as those of the main state. */
  async select(rows: readonly number[]): Promise<void> {
    const next = await this.state.select(rows);
    this.state.dispose();
    this.state = next;
  }

  dispose(): void {
    this.state.dispose();
  }
}
