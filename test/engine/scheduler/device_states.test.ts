/** A scheduler whose states have places on the device: nothing goes through the host, prompts are read together, and each gets its own text. */
import { expect } from 'chai';
import { omit } from '../../../src/base/omit.js';
import { CompiledEngine } from '../../../src/engine/compiled/compiled_engine.js';
import { Scheduler } from '../../../src/engine/scheduler/scheduler.js';
import type { ScheduledRequest, ScheduledResult, SchedulerOptions } from '../../../src/engine/scheduler/types.js';
import { GenerationConfig } from '../../../src/generation/config.js';
import { generate } from '../../../src/generation/generate.js';
import type { Mamba2ForCausalLM } from '../../../src/models/mamba2/causal_lm.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { hostCopies } from '../../support/host_copies.js';
import { lcg } from '../../support/random.js';
import { tinyModel } from '../../support/tiny_model.js';

const V = 37;
const config = new GenerationConfig();
const NONE = { readAllBytes: 0, readBytes: 0, assignAll: 0, assign: 0, zeroAll: 0 };

describe('states of a scheduler on the device', function () {
  this.timeout(240_000);
  let model: Mamba2ForCausalLM;
  let engine: CompiledEngine;
  /** Bytes of a state. */
  let each: number;
  let scheduler: Scheduler | null = null;

  before(async () => {
    await useBackend('tensorflow');
    ({ model } = tinyModel({ vocab_size: V }, 3));
    engine = new CompiledEngine(model.weights, { segments: [8], block: 4 });
    each = engine.state_files.row_bytes;
  });
  after(() => {
    engine.dispose();
    model.dispose();
  });
  afterEach(async () => {
    await scheduler?.close();
    scheduler = null;
  });

  /** Places for five states, and four prompts that are read together. */
  const start = (options: SchedulerOptions = {}, cache: object = {}): Scheduler =>
    (scheduler = new Scheduler(engine, {
      rows: 3,
      row_sizes: [3],
      block: 4,
      readers: 4,
      prompt_tokens: 64,
      state_cache: { device_bytes: 5 * each, ...cache },
      ...options,
    }));
  const prompt = (seed: number, length: number): number[] => {
    const random = lcg(seed);
    return Array.from({ length }, () => 3 + Math.floor(random() * (V - 3)));
  };
  const request = (seed: number, length: number, more: Partial<ScheduledRequest> = {}): ScheduledRequest => ({
    input_ids: prompt(seed, length),
    max_new_tokens: 7,
    eos_token_id: null,
    ...(seed % 2 && { do_sample: true, seed }),
    ...more,
  });
  const alone = async ({ input_ids, max_new_tokens, ...rest }: ScheduledRequest): Promise<number[]> => {
    const { do_sample, seed } = rest;
    const { new_tokens } = await generate(engine, config, {
      input_ids: [Array.from(input_ids)],
      max_new_tokens,
      eos_token_id: null,
      ...(do_sample && { do_sample, seed }),
    });
    return new_tokens[0]!;
  };
  const text = ({ choices }: ScheduledResult): number[] => choices[0]!.ids;

  it('reads, decodes, keeps and goes on without a copy to the host', async () => {
    start();
    const first = Array.from({ length: 6 }, (_, i) => request(i, [20, 22, 17, 31][i % 4]!));
    const wanted: number[][] = [];
    for (const one of first) wanted.push(await alone(one));
    // what a program needs at its first calls is no matter here
    await scheduler!.submit(request(50, 20)).result;
    let got: ScheduledResult[] = [];
    const { copies, calls } = await hostCopies(async () => {
      got = await Promise.all(first.map((one) => scheduler!.submit(one).result));
    });
    expect(got.map(text)).to.deep.equal(wanted);
    expect(copies).to.deep.equal(NONE);
    // three rows are filled at once, and read in as many pieces as the longest of them alone
    const readings = Object.entries(calls).filter(([name]) => name.startsWith('prefill_readers4x')); // 8 or 64 ids, by the device
    expect(readings.reduce((sum, [, count]) => sum + count, 0)).to.be.within(1, 12);
    // the second turn of the last, whose snapshot is on the device
    const last = first.at(-1)!;
    const next = { ...last, input_ids: [...Array.from(last.input_ids), ...wanted.at(-1)!, 5, 6, 7] };
    let second: ScheduledResult | null = null;
    const turn = await hostCopies(async () => (second = await scheduler!.submit(next).result));
    expect(second!.usage.cached_tokens).to.equal(next.input_ids.length - 3);
    expect(turn.copies).to.deep.equal(NONE);
    expect(text(second!)).to.deep.equal(await alone(next));
    const { device, host } = scheduler!.metrics().cache;
    expect(device!.entries).to.be.within(3, 6);
    expect(device!.budget).to.be.closeTo(5 * each, each);
    expect(host.entries).to.equal(0);
  });

  it('moves long snapshots to the host, and drops short ones, where the device is full', async () => {
    for (const host_tokens of [0, 1000]) {
      start({}, { host_tokens });
      const begin = Array.from({ length: 7 }, (_, i) => request(2 * i, 20 + i));
      const answers: number[][] = [];
      for (const one of begin) answers.push(text(await scheduler!.submit(one).result));
      const { device, host, evictions } = scheduler!.metrics().cache;
      // five places, and where the last one was read
      expect(device!.entries).to.be.within(2, 6);
      expect(host.entries > 0, `${host_tokens}`).to.equal(host_tokens === 0);
      expect(evictions > 0, `${host_tokens}`).to.equal(host_tokens > 0);
      const next = { ...begin[0]!, input_ids: [...Array.from(begin[0]!.input_ids), ...answers[0]!, 9] };
      const got = await scheduler!.submit(next).result;
      expect(got.usage.cached_tokens).to.equal(host_tokens === 0 ? next.input_ids.length - 1 : 0);
      expect(text(got)).to.deep.equal(await alone(next));
      await scheduler!.close();
    }
  });

  it('gives way, forks, and makes snapshots in the middle, to the same texts', async () => {
    start({ slice: 3, prompt_tokens: 8 });
    const requests = Array.from({ length: 9 }, (_, i) =>
      request(i, [3, 26, 33][i % 3]!, { priority: i % 2, ...(i % 3 && { marks: [16, 19] }) }),
    );
    const wanted: number[][] = [];
    for (const one of requests) wanted.push(await alone(one));
    for (let round = 0; round < 2; round++) {
      const got = await Promise.all(requests.map((one) => scheduler!.submit(one).result));
      expect(got.map(text)).to.deep.equal(wanted);
    }
    expect(scheduler!.metrics().preemptions).to.be.greaterThan(2);
    const kept = await scheduler!.submit({ ...requests[1]!, keep_state: true }).result;
    const { state } = kept;
    const more = { ...omit(requests[2]!, 'marks'), input_ids: [4, 5], state };
    const ids = [...Array.from(requests[1]!.input_ids), ...wanted[1]!, 4, 5];
    for (let turn = 0; turn < 2; turn++)
      expect(text(await scheduler!.submit(more).result)).to.deep.equal(await alone({ ...more, input_ids: ids }));
    expect((await scheduler!.states.read(state!)).ids).to.deep.equal(ids.slice(0, -2));
  });

  it('leaves no tensor and no place, and lets generate() of other sizes go on', async () => {
    start();
    const one = request(2, 21);
    const wanted = await alone(one);
    expect(text(await scheduler!.submit(one).result)).to.deep.equal(wanted);
    const batch = { input_ids: [prompt(1, 5), prompt(2, 5)], max_new_tokens: 3, eos_token_id: null };
    const both = (await generate(engine, config, batch)).new_tokens;
    const before = tensorCount();
    const [got, again] = await Promise.all([scheduler!.submit(one).result, generate(engine, config, batch)]);
    expect(text(got)).to.deep.equal(wanted);
    expect(again.new_tokens).to.deep.equal(both);
    await scheduler!.close();
    start();
    expect(text(await scheduler!.submit(one).result)).to.deep.equal(wanted);
    expect(tensorCount()).to.deep.equal(before);
  });
});
