/** Requests that the rows of a program cannot serve, by generate() over the same engine: its calls and the rows' take turns. */
import type { GenerationEngine } from '../../generation/engine.js';
import { generate } from '../../generation/generate.js';
import { optionsOf } from '../../generation/inputs.js';
import type { LogitsProcessor } from '../../generation/processors.js';
import type { StoppingCriteria } from '../../generation/stopping.js';
import type { Streamer } from '../../generation/streamers.js';
import { Choice, type Job } from './job.js';
import type { StateKeep } from './kept_states.js';
import { logprobsOf } from './logprobs.js';
import type { Known, Plan } from './plan.js';
import { allowOnly, penalise } from './scores.js';
import { SharedState } from './shared_state.js';
import type { Tally } from './tally.js';
import type { TokenConstraint } from './types.js';

/** What such a request needs of its scheduler. */
export interface BesideContext {
  readonly known: Known;
  readonly kept: StateKeep;
  readonly tally: Tally;
}

/** Runs a request to its end; its job then has the choices. */
export async function runBeside(
  engine: GenerationEngine,
  job: Job,
  { known, kept, tally }: BesideContext,
): Promise<void> {
  const plan = job.work.plan!;
  const { request, options } = plan;
  const before = request.state == null ? null : await kept.open(request.state);
  const state = before ? await before.state.state.clone() : null;
  let handedOn = false;
  try {
    job.ids = before ? Int32Array.from([...before.ids, ...plan.input_ids]) : plan.input_ids;
    job.queued = job.milliseconds;
    const { usage } = job.delivery;
    Object.assign(usage, { prompt_tokens: job.ids.length, cached_tokens: before?.ids.length ?? 0 });
    tally.admitted(job);
    const length = job.ids.length;
    job.choices = Array.from({ length: options.num_return_sequences }, (_, i) => new Choice(job, plan, i, [], 0));
    const constraints = job.choices.map(({ constraint }) => constraint);
    const streams = options.num_beams === 1 && request.logprobs == null;
    const output = await generate(engine, known.config, {
      ...optionsOf({ ...request, input_ids: [], state: null }),
      input_ids: [[...plan.input_ids]],
      attention_mask: [Array.from(plan.input_ids, () => 1)],
      ...(state && { state, history: [Array.from(before!.ids)] }),
      ...(streams && { streamer: streamTo(job, tally) }),
      signal: job.stop.signal,
      tokenizer: request.tokenizer ?? known.tokenizer,
      vocab_limit: known.vocab_limit,
      prefix_allowed_tokens_fn: request.prefix_allowed_tokens_fn,
      logits_processor: [...ownProcessors(plan, length, constraints), ...(request.logits_processor ?? [])],
      stopping_criteria: [...ending(constraints), ...(request.stopping_criteria ?? [])],
      return_state: request.keep_state === true,
      return_dict_in_generate: true,
      output_logits: request.logprobs != null,
    });
    for (const [row, choice] of job.choices.entries()) {
      const ids = output.new_tokens[row]!;
      choice.all.splice(length, Infinity, ...ids);
      choice.finish = output.finish_reasons[row]!;
      const top = request.logprobs;
      if (top != null)
        choice.logprobs!.push(...ids.map((id, k) => logprobsOf(output.logits![k]![row]!, known.vocab_limit, id, top)));
      if (!streams) tally.tokens(job, choice, ids.length, 0);
      job.delivery.put({
        choice: row,
        ids: streams ? [] : ids,
        ...(choice.logprobs && { logprobs: choice.logprobs }),
        finish_reason: choice.finish,
      });
    }
    if (output.state) {
      handedOn = output.state === state;
      const last = new SharedState(job.choices.length === 1 ? output.state : await output.state.select([0]));
      if (job.choices.length > 1) output.state.dispose();
      try {
        job.kept = (await kept.keep(Int32Array.from(job.choices[0]!.all), last)).id;
      } finally {
        last.release();
      }
    }
  } finally {
    if (!handedOn) state?.dispose();
    before?.state.release();
  }
}

/** Hands on new ids as they come. */
function streamTo(job: Job, tally: Tally): Streamer {
  let prompt = true;
  return {
    put(rows) {
      if (!prompt)
        for (const [choice, ids] of rows.entries()) {
          if (ids.length === 0) continue;
          tally.tokens(job, job.choices[choice]!, ids.length, 0);
          job.choices[choice]!.all.push(...ids);
          job.delivery.put({ choice, ids: Array.from(ids), finish_reason: null });
        }
      prompt = false;
    },
    end() {
      // the events with the reasons follow
    },
  };
}

/** What generate() has no options for. */
function ownProcessors(
  { request: { logit_bias = [], presence_penalty = 0, frequency_penalty = 0 } }: Plan,
  prompt_length: number,
  constraints: readonly (TokenConstraint | null)[],
): LogitsProcessor[] {
  const list: LogitsProcessor[] = [];
  if (logit_bias.length > 0)
    list.push({ process: (_ids, scores) => logit_bias.forEach(([id, by]) => (scores[id]! += by)) });
  if (presence_penalty !== 0 || frequency_penalty !== 0)
    list.push({
      process: (ids, scores) => penalise(scores, ids, prompt_length, presence_penalty, frequency_penalty),
    });
  if (constraints.some((one) => one !== null))
    list.push({ process: (_ids, scores, row) => allowOnly(constraints[row]?.mask() ?? null, scores) });
  return list;
}

function ending(constraints: readonly (TokenConstraint | null)[]): StoppingCriteria[] {
  if (constraints.every((one) => one === null)) return [];
  return [{ done: (ids, _scores, row) => constraints[row]?.accept(ids.at(-1)!) ?? false }];
}
