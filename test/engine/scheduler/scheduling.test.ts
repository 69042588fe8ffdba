/** A scheduler over a model in plain loops: what a request gets depends on no other, nothing is lost, nothing is left. */
import { expect } from 'chai';
import { ArgumentError, GenerationError } from '../../../src/base/errors.js';
import { omit } from '../../../src/base/omit.js';
import { QueueFullError, SchedulerClosedError, UnknownStateError } from '../../../src/engine/scheduler/errors.js';
import { Scheduler } from '../../../src/engine/scheduler/scheduler.js';
import type {
  ScheduledRequest,
  SchedulerEvent,
  SchedulerOptions,
  TokenEvent,
} from '../../../src/engine/scheduler/types.js';
import { GenerationConfig } from '../../../src/generation/config.js';
import { generate } from '../../../src/generation/generate.js';
import { rejection, thrown } from '../../support/errors.js';
import { lcg } from '../../support/random.js';
import { ToyEngine } from '../../support/toy_engine.js';

const V = 23;
const EOS = 2;

/** Scores that depend on every id so far. */
function scoresOf(ids: readonly number[]): Float32Array {
  let seed = 7;
  for (const id of ids) seed = (Math.imul(seed ^ id, 2654435761) + 12345) >>> 0;
  const random = lcg(seed);
  random();
  return Float32Array.from({ length: V }, () => 6 * (random() - 0.5));
}

/** One that takes as long as others may need to come in between, and says how much a state takes. */
class SlowToy extends ToyEngine {
  constructor() {
    super(V, scoresOf);
  }
  memoryFor(rows: number): number {
    return 1000 * rows;
  }
}

const config = new GenerationConfig({ eos_token_id: EOS, pad_token_id: 0, max_new_tokens: 12 });

async function alone(request: ScheduledRequest): Promise<number[][]> {
  const { input_ids, ...rest } = request;
  const options = omit(rest, 'priority', 'client', 'signal', 'cache', 'marks');
  const { new_tokens } = await generate(new ToyEngine(V, scoresOf), config, {
    ...options,
    state: null,
    input_ids: [Array.from(input_ids)],
    attention_mask: [Array.from(input_ids, () => 1)],
  });
  return new_tokens;
}

/** Any request that generate() takes too. */
function anyRequest(random: () => number): ScheduledRequest {
  const pick = <T>(...from: T[]): T => from[Math.floor(random() * from.length)]!;
  const length = pick(1, 2, 7, 30, 90);
  const input_ids = Array.from({ length }, () => 3 + Math.floor(random() * (V - 3)));
  const sampled = random() < 0.6;
  const max_new_tokens = pick(1, 3, 9, 20);
  return {
    input_ids,
    max_new_tokens,
    ...(random() < 0.3 && { min_new_tokens: Math.min(7, max_new_tokens) }),
    ...(random() < 0.3 && { repetition_penalty: pick(1.3, 0.8) }),
    ...(random() < 0.2 && { suppress_tokens: [5, 6] }),
    ...(random() < 0.2 && { begin_suppress_tokens: [7, EOS] }),
    ...(random() < 0.2 && { no_repeat_ngram_size: 2 }),
    ...(sampled && {
      do_sample: true,
      seed: Math.floor(random() * 1e6),
      temperature: pick(0.7, 1, 1.6),
      top_k: pick(0, 5),
      ...(random() < 0.3 && { top_p: 0.8 }),
      ...(random() < 0.3 && { num_return_sequences: pick(2, 3) }),
    }),
    priority: pick(0, 0, 0, 1, 5),
    client: pick('a', 'b'),
    cache: pick(true, true, false),
    ...(length > 7 && { marks: [5, length] }),
  };
}

async function eventsOf(stream: AsyncIterable<TokenEvent>): Promise<TokenEvent[]> {
  const events: TokenEvent[] = [];
  for await (const event of stream) events.push(event);
  return events;
}

const textsOf = (events: readonly TokenEvent[], rows: number): number[][] =>
  Array.from({ length: rows }, (_, row) => events.filter(({ choice }) => choice === row).flatMap(({ ids }) => ids));

describe('a scheduler', () => {
  const made: Scheduler[] = [];
  const engines: ToyEngine[] = [];
  const start = (options: SchedulerOptions = {}): { scheduler: Scheduler; engine: ToyEngine } => {
    const engine = new SlowToy();
    const scheduler = new Scheduler(engine, { rows: 3, block: 4, generation_config: config, ...options });
    made.push(scheduler);
    engines.push(engine);
    return { scheduler, engine };
  };
  afterEach(async () => {
    for (const scheduler of made.splice(0)) await scheduler.close();
    // every state that was made has been disposed of, once
    for (const engine of engines.splice(0)) expect(engine.live).to.equal(0);
  });

  for (const slice of [null, 3])
    it(`gives each what it gets alone, whoever comes and goes: slice ${slice}`, async function () {
      this.timeout(60_000);
      for (let trial = 0; trial < 12; trial++) {
        const random = lcg(100 + trial);
        const { scheduler } = start({ slice, prompt_tokens: 16, state_cache: { host_bytes: 7000 } });
        const requests = Array.from({ length: 25 }, () => anyRequest(random));
        const wanted = await Promise.all(requests.map(alone));
        const got = await Promise.all(
          requests.map(async (request, i) => {
            for (let wait = Math.floor(random() * 40); wait > 0; wait--) await new Promise(setImmediate);
            const left = random() < 0.15 ? new AbortController() : null;
            const scheduled = scheduler.submit({ ...request, signal: left?.signal });
            const events = eventsOf(scheduled);
            for (let wait = left ? Math.floor(random() * 20) : 0; wait > 0; wait--) await new Promise(setImmediate);
            left?.abort();
            const { choices, usage } = await scheduled.result;
            expect(textsOf(await events, choices.length)).to.deep.equal(choices.map(({ ids }) => ids));
            expect(usage.completion_tokens).to.equal(choices.reduce((sum, { ids }) => sum + ids.length, 0));
            return { choices, aborted: left !== null, i };
          }),
        );
        for (const { choices, aborted, i } of got) {
          const at = `trial ${trial}, request ${i}: ${JSON.stringify(requests[i])}`;
          expect(choices.length, at).to.equal(wanted[i]!.length);
          choices.forEach(({ ids, finish_reason }, row) => {
            if (aborted && finish_reason === 'abort')
              expect(ids, at).to.deep.equal(wanted[i]![row]!.slice(0, ids.length));
            else expect(ids, at).to.deep.equal(wanted[i]![row]);
          });
        }
        const { rows_running, running, waiting, finished, aborted, submitted, failed } = scheduler.metrics();
        expect([rows_running, running, waiting, failed]).to.deep.equal([0, 0, 0, 0]);
        expect(finished + aborted).to.equal(submitted);
        await scheduler.close();
      }
    });

  it('takes a row from a lower priority, which then goes on to the same text', async () => {
    const events: SchedulerEvent[] = [];
    const { scheduler } = start({ rows: 1, on_event: (event) => events.push(event) });
    const low: ScheduledRequest = {
      input_ids: [9, 8, 7],
      max_new_tokens: 40,
      eos_token_id: null,
      do_sample: true,
      seed: 3,
    };
    const high: ScheduledRequest = { input_ids: [4, 5], max_new_tokens: 10, eos_token_id: null };
    const first = scheduler.submit(low);
    const stream = first[Symbol.asyncIterator]();
    await stream.next();
    const second = scheduler.submit({ ...high, priority: 1 });
    const order: string[] = [];
    const [a, b] = await Promise.all([
      first.result.then((result) => (order.push('low'), result)),
      second.result.then((result) => (order.push('high'), result)),
    ]);
    expect(order).to.deep.equal(['high', 'low']);
    expect(a.preemptions).to.equal(1);
    expect(events.filter(({ kind }) => kind === 'preempted')).to.have.length(1);
    expect([a.choices[0]!.ids]).to.deep.equal(await alone(low));
    expect([b.choices[0]!.ids]).to.deep.equal(await alone(high));
    await stream.return?.(undefined);
  });

  it('lets a short prompt pass while a long one is read, and a running row go on', async () => {
    const { scheduler } = start({ rows: 3, prompt_tokens: 8 });
    const ended: string[] = [];
    const submit = (name: string, request: ScheduledRequest): Promise<unknown> =>
      scheduler.submit(request).result.then(() => ended.push(name));
    await Promise.all([
      submit('long', { input_ids: new Array<number>(800).fill(4), max_new_tokens: 1 }),
      submit('short', { input_ids: [5, 6], max_new_tokens: 8, eos_token_id: null }),
    ]);
    expect(ended).to.deep.equal(['short', 'long']);
  });

  it('lets clients of one priority take turns', async () => {
    const { scheduler } = start({ rows: 1 });
    const order: string[] = [];
    const submit = (client: string): Promise<unknown> =>
      scheduler
        .submit({ input_ids: [5], max_new_tokens: 2, eos_token_id: null, client })
        .result.then(() => order.push(client));
    await Promise.all(['a', 'a', 'a', 'a', 'b', 'b'].map(submit));
    expect(order.slice(0, 4)).to.have.members(['a', 'b', 'a', 'b']);
  });

  it('reads the second turn of a conversation from where the first ended, to the same text', async () => {
    const { scheduler, engine } = start();
    const prompt = Array.from({ length: 60 }, (_, i) => 3 + (i % 17));
    const first = await scheduler.submit({ input_ids: prompt, max_new_tokens: 9 }).result;
    const next = [...prompt, ...first.choices[0]!.ids, 8, 9, 10];
    const { prefill } = engine.calls;
    const request = { input_ids: next, max_new_tokens: 9 };
    const second = await scheduler.submit(request).result;
    expect(second.usage).to.deep.include({ prompt_tokens: next.length, cached_tokens: next.length - 3 });
    expect(engine.calls.prefill - prefill).to.equal(1);
    expect([second.choices[0]!.ids]).to.deep.equal(await alone(request));
    // the same prompt once more needs no reading at all
    const again = await scheduler.submit(request).result;
    expect(again.usage.cached_tokens).to.equal(next.length);
    expect(again.choices[0]!.ids).to.deep.equal(second.choices[0]!.ids);
    // and an edit in the middle goes on from the last mark before it
    expect(scheduler.metrics().cache).to.deep.include({ queries: 3, hits: 2 });
  });

  it('keeps snapshots at marks, within its bytes, the longest unused going first', async () => {
    const { scheduler } = start({ state_cache: { host_bytes: 3000 } });
    const base = Array.from({ length: 50 }, (_, i) => 3 + (i % 19));
    await scheduler.submit({ input_ids: [...base, 7, 7], max_new_tokens: 1, marks: [20, 50] }).result;
    const { cache } = scheduler.metrics();
    expect(cache.host).to.deep.equal({ entries: 3, bytes: 3000, budget: 3000 });
    expect(cache.evictions).to.be.greaterThan(0);
    const edited = await scheduler.submit({ input_ids: [...base, 9, 9], max_new_tokens: 1 }).result;
    expect(edited.usage.cached_tokens).to.equal(50);
    const without = await scheduler.submit({ input_ids: [...base, 9, 9], max_new_tokens: 1, cache: false }).result;
    expect(without.usage.cached_tokens).to.equal(0);
  });

  it('keeps the end of a prompt where it is long enough, or marked, and that of an answer', async () => {
    const { scheduler } = start({ state_cache: { prompt_end_tokens: 40 } });
    const ids = Array.from({ length: 39 }, (_, i) => 3 + (i % 19));
    const entries = async (request: ScheduledRequest): Promise<number> => {
      const before = scheduler.metrics().cache.host.entries;
      await scheduler.submit({ max_new_tokens: 1, ...request }).result;
      return scheduler.metrics().cache.host.entries - before;
    };
    expect(await entries({ input_ids: ids })).to.equal(1);
    expect(await entries({ input_ids: [4, ...ids] })).to.equal(2);
    expect(await entries({ input_ids: [5, ...ids.slice(1)], marks: [39] })).to.equal(2);
  });

  it('reads a prompt once for several texts', async () => {
    const { scheduler, engine } = start({ rows: 2 });
    const request: ScheduledRequest = {
      input_ids: Array.from({ length: 30 }, (_, i) => 3 + (i % 11)),
      num_return_sequences: 5,
      do_sample: true,
      seed: 11,
      max_new_tokens: 7,
    };
    const { choices, usage } = await scheduler.submit(request).result;
    expect(engine.calls.prefill).to.equal(1);
    expect(choices.map(({ ids }) => ids)).to.deep.equal(await alone(request));
    expect(usage.prompt_tokens).to.equal(30);
  });

  it('keeps to a grammar, beside rows that have none', async () => {
    const { scheduler } = start();
    const allowed = (count: number): number[] => (count < 4 ? [3 + count, 9, 12] : [EOS]);
    const constrained: ScheduledRequest = { input_ids: [5, 6, 7], do_sample: true, seed: 4, max_new_tokens: 10 };
    const free: ScheduledRequest = { input_ids: [8, 9], max_new_tokens: 15, eos_token_id: null };
    const grammar = (): { mask(): Int32Array; accept(id: number): boolean } => {
      let count = 0;
      return {
        mask: () => {
          const bits = new Int32Array(1);
          for (const id of allowed(count)) bits[0]! |= 1 << id;
          return bits;
        },
        accept: () => (count++, false),
      };
    };
    const [a, b] = await Promise.all([
      scheduler.submit({ ...constrained, constraint: grammar }).result,
      scheduler.submit(free).result,
    ]);
    const wanted = await alone({
      ...constrained,
      prefix_allowed_tokens_fn: (_row, ids) => allowed(ids.length - 3),
    });
    expect([a.choices[0]!.ids]).to.deep.equal(wanted);
    expect(a.choices[0]!.finish_reason).to.equal('eos');
    expect([b.choices[0]!.ids]).to.deep.equal(await alone(free));
  });

  it('gives log-probabilities of the model itself', async () => {
    const { scheduler } = start();
    const { choices } = await scheduler.submit({
      input_ids: [5, 6],
      max_new_tokens: 4,
      logprobs: 3,
      logit_bias: [[7, 5]],
    }).result;
    const [{ ids, logprobs }] = choices as [(typeof choices)[0]];
    expect(logprobs).to.have.length(ids.length);
    ids.forEach((id, k) => {
      const scores = Array.from(scoresOf([5, 6, ...ids.slice(0, k)]));
      const sum = Math.log(scores.reduce((total, x) => total + Math.exp(x), 0));
      const sorted = scores.map((x, i) => ({ id: i, x })).sort((p, q) => q.x - p.x);
      expect(logprobs![k]!.id).to.equal(id);
      expect(logprobs![k]!.logprob).to.be.closeTo(scores[id]! - sum, 1e-5);
      expect(logprobs![k]!.top.map((one) => one.id)).to.deep.equal(sorted.slice(0, 3).map((one) => one.id));
    });
  });

  it('subtracts presence and frequency penalties, in rows and beside them', async () => {
    const { scheduler } = start();
    const request: ScheduledRequest = {
      input_ids: [5, 6],
      max_new_tokens: 14,
      eos_token_id: null,
      presence_penalty: 1.5,
      frequency_penalty: 0.7,
      logit_bias: [[4, 2]],
    };
    const wanted: number[] = [];
    while (wanted.length < 14) {
      const scores = scoresOf([5, 6, ...wanted]).map((x, id) => {
        const count = wanted.filter((one) => one === id).length;
        return x + (id === 4 ? 2 : 0) - (count > 0 ? 1.5 : 0) - 0.7 * count;
      });
      wanted.push(scores.indexOf(Math.max(...scores)));
    }
    expect((await scheduler.submit(request).result).choices[0]!.ids).to.deep.equal(wanted);
    const beside = scheduler.submit({ ...request, logits_processor: [{ process: () => undefined }] });
    expect((await beside.result).choices[0]!.ids).to.deep.equal(wanted);
  });

  it('searches with beams beside the rows', async () => {
    const { scheduler } = start();
    const beams: ScheduledRequest = { input_ids: [5, 6, 7], num_beams: 3, max_new_tokens: 8 };
    const [a, b] = await Promise.all([scheduler.submit(beams).result, scheduler.submit({ input_ids: [8, 9] }).result]);
    expect([a.choices[0]!.ids]).to.deep.equal(await alone(beams));
    expect([b.choices[0]!.ids]).to.deep.equal(await alone({ input_ids: [8, 9] }));
  });

  it('keeps states by ids, which texts go on from as often as they like', async () => {
    const { scheduler } = start();
    const { states } = scheduler;
    const base = await states.create([5, 6, 7, 8]);
    expect(base.tokens).to.equal(4);
    const longer = await states.create([9], { from: base.id });
    expect(await states.ids(longer.id)).to.deep.equal([5, 6, 7, 8, 9]);
    const fork = await states.fork(longer.id);
    const request = { input_ids: [10, 11], max_new_tokens: 6 };
    const wanted = await alone({ ...request, input_ids: [5, 6, 7, 8, 9, 10, 11] });
    for (const state of [longer.id, fork.id, longer.id]) {
      const { choices, usage, state: after } = await scheduler.submit({ ...request, state, keep_state: true }).result;
      expect([choices[0]!.ids]).to.deep.equal(wanted);
      expect(usage).to.deep.include({ prompt_tokens: 7, cached_tokens: 5 });
      expect(await states.ids(after!)).to.deep.equal([5, 6, 7, 8, 9, 10, 11, ...wanted[0]!]);
      await states.delete(after!);
    }
    const copy = await states.add(await states.read(longer.id));
    expect((await states.list()).map(({ id }) => id)).to.have.members([base.id, longer.id, fork.id, copy.id]);
    expect(await states.delete(longer.id)).to.equal(true);
    expect(await states.delete(longer.id)).to.equal(false);
    expect(await states.get(longer.id)).to.equal(null);
    const gone = scheduler.submit({ ...request, state: longer.id });
    expect(await rejection(gone.result)).to.be.instanceOf(UnknownStateError);
  });

  it('refuses more than the queue takes, and all once it is closed', async () => {
    const { scheduler } = start({ rows: 1, queue: 2 });
    const taken = [1, 2, 3].map(() => scheduler.submit({ input_ids: [5], max_new_tokens: 3 }));
    const full = thrown(() => scheduler.submit({ input_ids: [5] })) as QueueFullError;
    expect(full).to.be.instanceOf(QueueFullError);
    expect(full.data).to.deep.include({ waiting: 3, limit: 2 });
    expect(full.data['retry_after']).to.be.at.least(1);
    const drained = scheduler.drain();
    expect(thrown(() => scheduler.submit({ input_ids: [5] }))).to.be.instanceOf(SchedulerClosedError);
    await drained;
    for (const { result } of taken) expect((await result).choices[0]!.finish_reason).to.not.equal('abort');
  });

  it('aborts what does not end in time when it is drained', async () => {
    const { scheduler } = start({ rows: 1 });
    const endless = { input_ids: [5], max_new_tokens: 1_000_000, eos_token_id: null };
    const [running, waiting] = [scheduler.submit(endless), scheduler.submit(endless)];
    await running[Symbol.asyncIterator]().next();
    await scheduler.drain(20);
    expect((await running.result).choices[0]!.finish_reason).to.equal('abort');
    expect((await waiting.result).choices).to.deep.equal([{ ids: [], finish_reason: 'abort' }]);
  });

  it('ends a text at once when its reader leaves the loop', async () => {
    const { scheduler } = start({ rows: 1 });
    const scheduled = scheduler.submit({ input_ids: [5], max_new_tokens: 1_000_000, eos_token_id: null });
    for await (const { ids } of scheduled) if (ids.length > 0) break;
    expect((await scheduled.result).choices[0]!.finish_reason).to.equal('abort');
  });

  it('lets one request fail alone', async () => {
    const { scheduler } = start();
    const failing = scheduler.submit({
      input_ids: [5, 6],
      max_new_tokens: 9,
      eos_token_id: null,
      stopping_criteria: [
        {
          done: () => {
            throw new Error('mine');
          },
        },
      ],
    });
    const nothing = scheduler.submit({ input_ids: [5], suppress_tokens: Array.from({ length: V }, (_, i) => i) });
    const good = { input_ids: [8, 9], max_new_tokens: 12 };
    const fine = scheduler.submit(good);
    expect((await rejection(failing.result)).message).to.equal('mine');
    expect((await rejection(eventsOf(failing))).message).to.equal('mine');
    expect(await rejection(nothing.result)).to.be.instanceOf(GenerationError);
    expect([(await fine.result).choices[0]!.ids]).to.deep.equal(await alone(good));
    expect(scheduler.metrics().failed).to.equal(2);
  });

  it('lets a request fail with all its texts when the grammar of one does', async () => {
    const { scheduler } = start({ rows: 5 });
    const good = { input_ids: [8, 9], max_new_tokens: 12, eos_token_id: null };
    const early = scheduler.submit(good);
    const failing = scheduler.submit({
      input_ids: [5, 6],
      max_new_tokens: 9,
      eos_token_id: null,
      do_sample: true,
      num_return_sequences: 3,
      constraint: (choice) => {
        let count = 0;
        return {
          mask: () => {
            if (choice === 1 && count === 3) throw new Error('no such rule');
            return null;
          },
          accept: () => (count++, false),
        };
      },
    });
    const late = scheduler.submit({ ...good, input_ids: [4, 4, 7] });
    expect((await rejection(failing.result)).message).to.equal('no such rule');
    expect([(await early.result).choices[0]!.ids]).to.deep.equal(await alone(good));
    expect([(await late.result).choices[0]!.ids]).to.deep.equal(await alone({ ...good, input_ids: [4, 4, 7] }));
  });

  it('lets go of all states where a grammar cannot be made', async () => {
    const { scheduler } = start();
    const constraint = (choice: number): { mask(): null; accept(): boolean } => {
      if (choice === 2) throw new Error('no grammar');
      return { mask: () => null, accept: () => false };
    };
    const request = { input_ids: [5, 6], do_sample: true, num_return_sequences: 3, constraint };
    expect((await rejection(scheduler.submit(request).result)).message).to.equal('no grammar');
  });

  it('takes requests, and aborts them, at any moment of one that runs beside the rows', async () => {
    const beside: ScheduledRequest = { input_ids: [5, 6], logits_processor: [{ process: () => undefined }] };
    const good = { input_ids: [8, 9], max_new_tokens: 3 };
    const wanted = await alone(good);
    for (let moment = 0; moment < 30; moment++) {
      const { scheduler } = start({ rows: 1 });
      const left = new AbortController();
      const endless = { ...beside, max_new_tokens: 1_000_000, eos_token_id: null, signal: left.signal };
      const first = scheduler.submit(endless);
      for (let k = 0; k < moment; k++) await Promise.resolve();
      const second = scheduler.submit(good);
      expect([(await second.result).choices[0]!.ids], `moment ${moment}`).to.deep.equal(wanted);
      const third = scheduler.submit(endless);
      for (let k = 0; k < moment; k++) await Promise.resolve();
      left.abort(new Error('gone'));
      for (const { result } of [first, third])
        expect((await result).choices[0]!.finish_reason, `moment ${moment}`).to.equal('abort');
      await scheduler.close();
    }
  });

  it('lets a request fail alone whose state finds no place', async () => {
    const { scheduler, engine } = start({ rows: 1 });
    const create = engine.createState.bind(engine);
    engine.createState = async (batch) => {
      const state = await create(batch);
      const clone = state.clone.bind(state);
      let copies = 0;
      state.clone = () => (++copies === 2 ? Promise.reject(new Error('no room')) : clone());
      return state;
    };
    const two: ScheduledRequest = { input_ids: [5, 6], do_sample: true, num_return_sequences: 2, cache: false };
    const good = { input_ids: [8, 9], max_new_tokens: 6, cache: false };
    const [failing, fine] = [scheduler.submit(two), scheduler.submit(good)];
    expect((await rejection(failing.result)).message).to.equal('no room');
    expect([(await fine.result).choices[0]!.ids]).to.deep.equal(await alone(good));
  });

  it('refuses wrong requests by name, at once', () => {
    const { scheduler } = start();
    const wrong: [object, string][] = [
      [{ input_ids: [5], max_tokens: 3 }, 'max_new_tokens'],
      [{ input_ids: [5], logprobs: 21 }, 'logprobs'],
      [{ input_ids: [5], state: '../secret' }, 'state'],
      [{ input_ids: [] }, 'input_ids'],
      [{ input_ids: [V] }, 'input_ids'],
      [{ input_ids: [5], marks: [2] }, 'marks'],
      [{ input_ids: [5], temperature: 0.5 }, 'temperature'],
      [{ input_ids: [5], stop_strings: ['x'] }, 'stop_strings'],
      [{ input_ids: [5], logit_bias: [[V, 1]] }, 'logit_bias'],
      [{ input_ids: [5], num_beams: 2, logprobs: 1 }, 'logprobs'],
      [{ input_ids: [5, 6], max_length: 2 }, 'max_length'],
    ];
    for (const [request, name] of wrong) {
      const error = thrown(() => scheduler.submit(request as ScheduledRequest));
      expect(error, name).to.be.instanceOf(Error);
      expect(
        [GenerationError, ArgumentError].some((kind) => error instanceof kind),
        String(error),
      ).to.equal(true);
      expect(error.message).to.contain(name);
    }
    expect(scheduler.metrics().submitted).to.equal(0);
  });
});
