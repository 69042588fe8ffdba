/** Rows over any engine: a state of its own for each, which go on one after another. What is chosen is what a program's rows choose. */
import { GenerationError } from '../../base/errors.js';
import { buildWarpers } from '../../generation/build.js';
import type { DecodingRows, RowOutcome, RowSampling, RowTurn, Seat } from '../../generation/decoding_rows.js';
import type { EngineState, GenerationEngine } from '../../generation/engine.js';
import { applyProcessors, RepetitionPenaltyLogitsProcessor } from '../../generation/processors.js';
import { argmax, draw, hasInvalid, noChoice } from '../../generation/scores.js';
import { allowOnly, penalise } from './scores.js';

export class StateRows implements DecodingRows {
  readonly most_eos = Infinity;
  readonly readers: number = 1;
  readonly fewest: number = 2;
  readonly places = null;
  private readonly states: (EngineState | null)[];

  constructor(
    private readonly engine: GenerationEngine,
    readonly rows: number,
    readonly block: number,
  ) {
    this.states = new Array<null>(rows).fill(null);
  }

  async seat(seats: readonly Seat[]): Promise<void> {
    for (const { row, state } of seats) {
      const copy = await state.clone();
      this.states[row]?.dispose();
      this.states[row] = copy;
    }
  }

  vacate(row: number): void {
    this.states[row]?.dispose();
    this.states[row] = null;
  }

  async lift(rows: readonly number[]): Promise<EngineState[]> {
    const made: EngineState[] = [];
    for (const row of rows) made.push(await this.own(row).clone());
    return made;
  }

  async decode(turns: readonly RowTurn[]): Promise<RowOutcome[]> {
    const single = turns.some(({ mask, logits }) => mask != null || logits === true);
    const outcomes: RowOutcome[] = [];
    for (const turn of turns) outcomes.push(await this.decodeRow(turn, single ? 1 : Math.min(turn.count, this.block)));
    return outcomes;
  }

  async warmup(): Promise<void> {
    // nothing is compiled
  }

  dispose(): void {
    for (const state of this.states) state?.dispose();
    this.states.fill(null);
  }

  private own(row: number): EngineState {
    const state = this.states[row];
    if (!state) throw new GenerationError(`internal: row ${row} holds no text`, { row });
    return state;
  }

  private async decodeRow(turn: RowTurn, count: number): Promise<RowOutcome> {
    const { row, sampling, uniforms, prompt_length, mask } = turn;
    const state = this.own(row);
    const all = [...turn.ids];
    const ids: number[] = [];
    let kept: Float32Array | undefined;
    for (let k = 0; k < count; k++) {
      const [scores] = (await this.engine.logits(state)) as [Float32Array];
      if (turn.logits) kept = scores.slice();
      if (hasInvalid(scores)) return { ids, error: noChoice(true, row, all.length) };
      change(scores, all, prompt_length, sampling, mask ?? null);
      const id = sampling.do_sample ? draw(scores, uniforms![k]!) : argmax(scores).index;
      if (id < 0) return { ids, error: noChoice(false, row, all.length) };
      ids.push(id);
      all.push(id);
      await this.engine.step(state, Int32Array.of(id));
      if (sampling.eos.includes(id)) break;
    }
    return { ids, ...(kept && { logits: kept }) };
  }
}

/** Scores as a row of a program has them before it draws: bias, mask, penalties, warpers. */
function change(
  scores: Float32Array,
  ids: readonly number[],
  prompt_length: number,
  s: RowSampling,
  mask: Int32Array | null,
): void {
  for (const [id, by] of s.bias) scores[id]! += by;
  allowOnly(mask, scores);
  const { repetition_penalty, presence_penalty, frequency_penalty } = s;
  if (repetition_penalty !== 1) new RepetitionPenaltyLogitsProcessor(repetition_penalty).process(ids, scores);
  if (presence_penalty !== 0 || frequency_penalty !== 0)
    penalise(scores, ids, prompt_length, presence_penalty, frequency_penalty);
  if (s.do_sample) applyProcessors(buildWarpers(s), ids, scores, 0);
}
