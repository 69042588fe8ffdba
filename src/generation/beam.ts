import { letOthersRun } from '../base/async.js';
import { GenerationError } from '../base/errors.js';
import type { ResolvedOptions } from './config.js';
import { RandomStream } from './random.js';
import { finishOf, limitOf, processorsOf, streamOf } from './run.js';
import type { Run } from './run.js';
import { logSoftmax } from './scores.js';
import type { FinishReason } from './stopping.js';
import { applyProcessors, type LogitsProcessor } from './processors.js';

/** Added to what must not be chosen; sums of log-probabilities stay far above it. */
const NEVER = -1e9;

/** A row that is finished or still running. */
interface Hypothesis {
  /** New ids. */
  tokens: number[];
  /** Running: sum of log-probabilities. Finished: divided by length to the power of length_penalty. */
  score: number;
  /** Per token, the row of the running beams that it came from. */
  origins: number[];
  finish: FinishReason | null;
}

/** The beams of one prompt. */
interface Search {
  readonly batch_id: number;
  readonly prompt: readonly number[];
  readonly limit: number;
  readonly processors: readonly LogitsProcessor[];
  readonly random: RandomStream | null;
  running: Hypothesis[];
  /** num_beams of them; those that are none yet have the score NEVER. */
  finished: Hypothesis[];
  improvable: boolean;
  done: boolean;
}

/** What beam search found: per prompt num_return_sequences rows, best first. */
export interface BeamResult {
  rows: { batch_id: number; tokens: number[]; score: number; origins: number[]; finish: FinishReason }[];
  scores: Float32Array[][];
  logits: Float32Array[][];
}

/**
 * Beam search, and beam sampling with do_sample (transformers' GenerationMixin._beam_search, 5.18). The run's state holds
 * num_beams rows per prompt. Each prompt's search is what it would be alone.
 */
export async function beamSearch(run: Run): Promise<BeamResult> {
  const { engine, options: o, guidance, prompts, inputs } = run;
  const scoresTrace: Float32Array[][] = [];
  const logitsTrace: Float32Array[][] = [];
  const searches = prompts.map((_, batch_id) => begin(run, batch_id));
  for (;;) {
    if (inputs.signal?.aborted) {
      for (const search of searches) if (!search.done) cutShort(search, o);
      break;
    }
    const logits = await engine.logits(run.state);
    if (o.output_logits) logitsTrace.push(logits.map((row) => row.slice()));
    const unconditional = await guidance?.unconditional();
    logits.forEach((row, i) => (unconditional ? guidance!.apply(row, unconditional[i]!) : logSoftmax(row)));
    const origins: number[] = [];
    const tokens: number[] = [];
    for (const search of searches) {
      const first = search.batch_id * o.num_beams;
      if (!search.done) await advance(run, search, logits.slice(first, first + o.num_beams));
      for (let beam = 0; beam < o.num_beams; beam++) {
        const { tokens: written, origins: from } = search.running[beam]!;
        // A search that is done keeps its place in the batch; what its rows hold no longer matters.
        origins.push(search.done ? first + beam : from.at(-1)!);
        tokens.push(search.done ? 0 : written.at(-1)!);
      }
    }
    if (o.output_scores) scoresTrace.push(logits);
    if (searches.every((search) => search.done)) break;
    run.replaceState(await run.state.select(origins));
    await guidance?.select(origins);
    await engine.step(run.state, Int32Array.from(tokens));
    await guidance?.step(Int32Array.from(tokens));
    await letOthersRun(); // that is where an abort is seen
  }
  const rows = searches.flatMap((search) =>
    search.finished.slice(0, o.num_return_sequences).map((h) => ({
      batch_id: search.batch_id,
      tokens: h.tokens,
      score: h.score,
      origins: h.origins,
      finish: h.finish ?? 'length',
    })),
  );
  return { rows, scores: scoresTrace, logits: logitsTrace };
}

function begin(run: Run, batch_id: number): Search {
  const { options: o, prompts, seed, inputs } = run;
  const prompt = prompts[batch_id]!.seen;
  const blank = (score: number): Hypothesis => ({ tokens: [], score, origins: [], finish: null });
  const beams = Array.from({ length: o.num_beams });
  return {
    batch_id,
    prompt,
    limit: limitOf(o, prompt.length),
    processors: processorsOf(run, batch_id),
    random: o.do_sample ? new RandomStream(seed, streamOf(inputs, batch_id, 1)) : null,
    // All beams begin alike: only the first may be continued, or all would say the same.
    running: beams.map((_, i) => blank(i === 0 ? 0 : NEVER)),
    finished: beams.map(() => blank(NEVER)),
    improvable: true,
    done: false,
  };
}

/** One token further: ranks continuations of all beams, puts the ended ones away, goes on with the best others. */
async function advance(run: Run, search: Search, scores: Float32Array[]): Promise<void> {
  const o = run.options;
  const n = o.num_beams;
  const first = search.batch_id * n;
  scores.forEach((row, beam) => {
    const ids = [...search.prompt, ...search.running[beam]!.tokens];
    applyProcessors(search.processors, ids, row, first + beam);
  });
  const candidates: (Hypothesis & { sum: number })[] = [];
  // Enough that num_beams are left even if the best ones all end.
  for (const { beam, id, sum } of best(search, scores, Math.max(2, 1 + o.eos_token_id.length) * n)) {
    const from = search.running[beam]!;
    const tokens = [...from.tokens, id];
    const ids = [...search.prompt, ...tokens];
    const finish = await finishOf(run, ids, tokens.length, search.limit, scores[beam]!, first + beam);
    candidates.push({ tokens, score: sum, sum, origins: [...from.origins, first + beam], finish });
  }
  const length = search.running[0]!.tokens.length + 1;
  const full = search.finished.every((h) => h.finish !== null);
  const ended = candidates.map((c, rank): Hypothesis => {
    const closes = c.finish !== null && rank < n && search.improvable && !(full && o.early_stopping === true);
    const score = c.sum / length ** o.length_penalty + (closes ? 0 : NEVER);
    return { ...c, score, finish: closes ? c.finish : null };
  });
  const byScore = (a: { score: number }, b: { score: number }): number => b.score - a.score;
  search.finished = [...search.finished, ...ended].sort(byScore).slice(0, n);
  search.running = candidates
    .map((c): Hypothesis => ({ ...c, score: c.sum + (c.finish === null ? 0 : NEVER), finish: null }))
    .sort(byScore)
    .slice(0, n);
  search.improvable &&= improvable(search, o, length);
  const closed = search.finished.every((h) => h.finish !== null) && o.early_stopping === true;
  search.done = !search.improvable || closed || candidates.every((c) => c.finish !== null);
}

/** Whether the best running beam may still beat the worst finished one (transformers' _check_early_stop_heuristic). */
function improvable(search: Search, o: ResolvedOptions, length: number): boolean {
  const best = o.early_stopping === 'never' && o.length_penalty > 0 ? search.limit : length;
  const hope = search.running[0]!.score / best ** o.length_penalty;
  const worst = Math.min(...search.finished.map((h) => h.score));
  return search.finished.some((h) => hope > (h.finish === null ? NEVER : worst));
}

/** The continuations with the greatest sums, best first; or as many drawn without replacement, in the order drawn. */
function best(search: Search, scores: Float32Array[], count: number): { beam: number; id: number; sum: number }[] {
  const top: { beam: number; id: number; sum: number; key: number }[] = [];
  scores.forEach((row, beam) => {
    for (let id = 0; id < row.length; id++) {
      const sum = row[id]! + search.running[beam]!.score;
      if (Number.isNaN(sum)) {
        throw new GenerationError(
          `The scores of prompt ${search.batch_id} are NaN after ${search.running[beam]!.tokens.length} new ids: the ` +
            `model's weights or a processor are wrong. remove_invalid_values: true would hide it.`,
          { row: search.batch_id },
        );
      }
      // Adding Gumbel noise and taking the largest draws without replacement (arXiv:1903.06059).
      const noise = search.random && sum > -Infinity ? -Math.log(-Math.log(search.random.uniform() + 2 ** -25)) : 0;
      const key = sum + noise;
      if (top.length === count && !(key > top[count - 1]!.key)) continue;
      let at = Math.min(top.length, count - 1);
      while (at > 0 && top[at - 1]!.key < key) {
        top[at] = top[at - 1]!;
        at--;
      }
      top[at] = { beam, id, sum, key };
    }
  });
  return top;
}

/** After an abort: running beams take the places that finished ones left empty. */
function cutShort(search: Search, o: ResolvedOptions): void {
  const open = search.running
    .filter((h) => h.tokens.length > 0 && h.score > NEVER / 2)
    .map((h): Hypothesis => ({ ...h, score: h.score / h.tokens.length ** o.length_penalty, finish: 'abort' }));
  const blank: Hypothesis = { tokens: [], score: NEVER, origins: [], finish: 'abort' };
  const finished = search.finished.filter((h) => h.finish !== null);
  search.finished = [...finished, ...open, ...Array.from({ length: o.num_beams }, () => blank)].slice(0, o.num_beams);
  search.done = true;
}
