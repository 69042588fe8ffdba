/** A scheduler over the compiled engine: each row of the program gives what generate() gives alone, and snapshots are exact. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { omit } from '../../../src/base/omit.js';
import type { CompiledEngine } from '../../../src/engine/compiled/compiled_engine.js';
import { Scheduler } from '../../../src/engine/scheduler/scheduler.js';
import type { ScheduledRequest, ScheduledResult, SchedulerOptions } from '../../../src/engine/scheduler/types.js';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/causal_lm.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { folderForEach } from '../../support/cleanup.js';
import { rejection } from '../../support/errors.js';
import { lcg } from '../../support/random.js';
import { tinyModel } from '../../support/tiny_model.js';

const V = 37;

/** Every kind of setting that rows have, beside one another. */
const SETTINGS: Partial<ScheduledRequest>[] = [
  {},
  { repetition_penalty: 1.4 },
  { do_sample: true, seed: 1 },
  { do_sample: true, seed: 2, temperature: 1.7, top_k: 4 },
  { do_sample: true, seed: 3, top_k: 0, top_p: 0.7 },
  { do_sample: true, seed: 4, top_k: 0, min_p: 0.2, repetition_penalty: 1.3 },
  { do_sample: true, seed: 5, top_k: 0, typical_p: 0.6 },
  { do_sample: true, seed: 6, top_k: 20, epsilon_cutoff: 0.02 },
  { do_sample: true, seed: 7, top_k: 0, eta_cutoff: 0.05, temperature: 0.8 },
  { do_sample: true, seed: 8, suppress_tokens: [4, 5, 6], begin_suppress_tokens: [7, 8] },
  { do_sample: true, seed: 9, eos_token_id: [3, 9, 12, 20] },
  { do_sample: true, seed: 10, eos_token_id: [3, 9, 12, 20], min_new_tokens: 6 },
  { eos_token_id: [3, 9, 12, 20, 30, 31], min_new_tokens: 3 },
  { do_sample: true, seed: 12, num_return_sequences: 3 },
  {
    sequence_bias: [
      [[11], 3],
      [[12], -3],
    ],
  },
];

describe('a scheduler over the compiled engine', function () {
  this.timeout(240_000);
  let model: Mamba2ForCausalLM;
  let saved: string;
  const schedulers: Scheduler[] = [];
  const folder = folderForEach('scheduler');

  before(async () => {
    await useBackend('tensorflow');
    const tiny = tinyModel({ vocab_size: V });
    saved = fs.mkdtempSync(path.join(os.tmpdir(), 'scheduled-'));
    await tiny.model.save_pretrained(saved);
    tiny.model.dispose();
    model = await load();
  });
  after(() => {
    model.dispose();
    fs.rmSync(saved, { recursive: true });
  });
  afterEach(async () => {
    for (const scheduler of schedulers.splice(0)) await scheduler.close();
  });

  const load = (): Promise<Mamba2ForCausalLM> =>
    Mamba2ForCausalLM.from_pretrained(saved, { engine: 'compiled', segments: [4, 16], block: 4 });
  const start = async (options: SchedulerOptions = {}, of = model): Promise<Scheduler> => {
    const scheduler = new Scheduler(await of.engine(), { rows: 3, block: 4, ...options });
    schedulers.push(scheduler);
    return scheduler;
  };
  const alone = async (request: ScheduledRequest): Promise<number[][]> => {
    const { input_ids, ...rest } = request;
    const { new_tokens } = await model.generate({
      ...omit(rest, 'priority', 'client', 'signal', 'cache', 'marks'),
      state: null,
      input_ids: [Array.from(input_ids)],
      attention_mask: [Array.from(input_ids, () => 1)],
      return_dict_in_generate: true,
    });
    return new_tokens;
  };
  const texts = ({ choices }: ScheduledResult): number[][] => choices.map(({ ids }) => ids);
  const prompt = (seed: number, length: number): number[] => {
    const random = lcg(seed);
    return Array.from({ length }, () => 3 + Math.floor(random() * (V - 3)));
  };
  const requests = (): ScheduledRequest[] =>
    SETTINGS.map((settings, i) => ({
      input_ids: prompt(i, [1, 5, 40, 13][i % 4]!),
      max_new_tokens: [18, 7, 23][i % 3]!,
      eos_token_id: null,
      ...settings,
    }));

  it('gives rows of every setting, side by side, what each gets alone', async () => {
    const wanted = [];
    for (const request of requests()) wanted.push(await alone(request));
    for (const options of [{}, { slice: 3, prompt_tokens: 8 }]) {
      const scheduler = await start(options);
      const scheduled = requests().map((request, i) => scheduler.submit({ ...request, priority: i % 3 }));
      for (const [i, { result }] of scheduled.entries())
        expect(texts(await result), JSON.stringify(SETTINGS[i])).to.deep.equal(wanted[i]);
      if ('slice' in options) expect(scheduler.metrics().preemptions).to.be.greaterThan(5);
      await scheduler.close();
    }
  });

  it('chooses by masks, and gives log-probabilities, beside rows that run on', async () => {
    const scheduler = await start();
    const ids = prompt(3, 6);
    const allowed = (count: number): number[] => [4 + (count % 5), 12, 33];
    const constrained: ScheduledRequest = {
      input_ids: ids,
      do_sample: true,
      seed: 4,
      max_new_tokens: 9,
      eos_token_id: null,
    };
    const free: ScheduledRequest = { input_ids: prompt(9, 11), max_new_tokens: 20, eos_token_id: null };
    const observed: ScheduledRequest = { input_ids: prompt(8, 3), max_new_tokens: 6, eos_token_id: null };
    const mask = (count: number): Int32Array => {
      const bits = new Int32Array(2);
      for (const id of allowed(count)) bits[id >>> 5]! |= 1 << (id & 31);
      return bits;
    };
    let count = 0;
    const constraint = () => ({ mask: () => mask(count), accept: () => (count++, false) });
    const [a, b, c] = await Promise.all([
      scheduler.submit({ ...constrained, constraint }).result,
      scheduler.submit(free).result,
      scheduler.submit({ ...observed, logprobs: 2 }).result,
    ]);
    const prefix_allowed_tokens_fn = (_row: number, so_far: readonly number[]): number[] =>
      allowed(so_far.length - ids.length);
    expect(texts(a)).to.deep.equal(await alone({ ...constrained, prefix_allowed_tokens_fn }));
    expect(texts(b)).to.deep.equal(await alone(free));
    const { new_tokens, logits } = await model.generate({
      input_ids: [Array.from(observed.input_ids)],
      max_new_tokens: 6,
      eos_token_id: null,
      return_dict_in_generate: true,
      output_logits: true,
    });
    expect(texts(c)).to.deep.equal(new_tokens);
    c.choices[0]!.logprobs!.forEach(({ id, logprob, top }, k) => {
      const scores = Array.from(logits![k]![0]!);
      const sum = Math.log(scores.reduce((total, x) => total + Math.exp(x), 0));
      expect(logprob).to.be.closeTo(scores[id]! - sum, 1e-4);
      expect(top[0]).to.deep.equal({ id, logprob });
    });
  });

  it('goes on from snapshots in memory, in a folder and by ids, to the text of an unbroken run', async () => {
    const first = await start({ state_cache: { folder: folder() } });
    const begin = { input_ids: prompt(5, 40), max_new_tokens: 10, eos_token_id: null };
    const answer = texts(await first.submit(begin).result)[0]!;
    const next = { ...begin, input_ids: [...begin.input_ids, ...answer, 7, 8, 9] };
    const wanted = await alone(next);
    const here = await first.submit(next).result;
    expect([here.usage.cached_tokens, ...texts(here)]).to.deep.equal([50, ...wanted]);
    const { id } = await first.states.create(next.input_ids);
    await first.close();
    expect(first.metrics().cache.folder!.entries).to.be.greaterThan(2);
    // another process would come by it in the same way: nothing is shared but the folder
    const other = await load();
    try {
      const second = await start({ state_cache: { folder: folder() } }, other);
      const there = await second.submit(next).result;
      expect([there.usage.cached_tokens, ...texts(there)]).to.deep.equal([next.input_ids.length, ...wanted]);
      const kept = await second.submit({ ...next, input_ids: [], state: id }).result;
      expect(texts(kept)).to.deep.equal(wanted);
      expect(await second.states.ids(id)).to.deep.equal(next.input_ids);
      await second.close();
    } finally {
      other.dispose();
    }
  });

  it('passes over files of the folder that are damaged or of another model', async () => {
    const first = await start({ state_cache: { folder: folder(), prompt_end_tokens: 16 } });
    const request = { input_ids: prompt(6, 40), max_new_tokens: 4, eos_token_id: null };
    const wanted = texts(await first.submit(request).result);
    await first.close();
    const files = fs.readdirSync(folder()).filter((name) => name.endsWith('.safetensors'));
    expect(files).to.have.length(2);
    for (const name of files) fs.writeFileSync(path.join(folder(), name), 'no safetensors');
    const second = await start({ state_cache: { folder: folder() } });
    const got = await second.submit(request).result;
    expect([got.usage.cached_tokens, ...texts(got)]).to.deep.equal([0, ...wanted]);
    await second.close();
    const stranger = tinyModel({ vocab_size: V }, 77).model;
    try {
      const third = await start({ rows: 1, block: 1, state_cache: { folder: folder() } }, stranger);
      expect((await third.submit(request).result).usage.cached_tokens).to.equal(0);
      await third.close();
    } finally {
      stranger.dispose();
    }
  });

  it('lets generate() of other sizes go on beside it', async () => {
    const scheduler = await start();
    const request = requests()[3]!;
    const wanted = await alone(request);
    const batch = { input_ids: [prompt(1, 5), prompt(2, 5)], max_new_tokens: 9, eos_token_id: null };
    const both = await model.generate(batch);
    const [got, again] = await Promise.all([scheduler.submit(request).result, model.generate(batch)]);
    expect(texts(got)).to.deep.equal(wanted);
    expect(again).to.deep.equal(both);
  });

  it('leaves no tensor, and lets the engine have another scheduler', async () => {
    const scheduler = await start();
    const request = requests()[5]!;
    const wanted = texts(await scheduler.submit(request).result);
    const second = new Scheduler(await model.engine(), { rows: 3, block: 4 });
    expect((await rejection(second.submit(request).result)).message).to.contain('scheduler already');
    await second.close();
    await scheduler.close();
    const before = tensorCount();
    const third = await start();
    expect(texts(await third.submit(request).result)).to.deep.equal(wanted);
    await third.close();
    expect(tensorCount()).to.deep.equal(before);
  });

  it('fails what runs when the engine goes, and says so', async () => {
    const other = await load();
    const scheduler = await start({}, other);
    const scheduled = scheduler.submit({ input_ids: [5], max_new_tokens: 100_000, eos_token_id: null });
    await scheduled[Symbol.asyncIterator]().next();
    ((await other.engine()) as CompiledEngine).dispose();
    expect((await rejection(scheduled.result)).name).to.equal('DisposedError');
    await scheduler.close();
    other.dispose();
  });
});
