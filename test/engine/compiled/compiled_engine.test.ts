/** The compiled engine against golden values, the eager engine, and the processors on the host. */
import { expect } from 'chai';
import { ArgumentError } from '../../../src/base/errors.js';
import { GREEDY, type EngineSampling, type GenerationEngine } from '../../../src/generation/engine.js';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/causal_lm.js';
import { CompiledEngine, type CompiledEngineOptions } from '../../../src/engine/compiled/compiled_engine.js';
import { EagerEngine } from '../../../src/engine/eager_engine.js';
import { layerInstructions } from '../../../src/kernels/index.js';
import { cpuFeatures } from '../../../src/runtime/cpu.js';
import { onGpu } from '../../../src/runtime/index.js';
import { loadCheckpoint } from '../../../src/models/mamba2/pretrained.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { disposedAfterEach } from '../../support/cleanup.js';
import { bfloat16Bound, expectClose, largestDifference } from '../../support/compare.js';
import { rejection } from '../../support/errors.js';
import { loadGolden, vectorOf } from '../../support/goldens.js';
import { spreadOf } from '../../support/spread.js';
import { tinyModel } from '../../support/tiny_model.js';

const TOLERANCE = 1e-4;
describe('CompiledEngine', function () {
  this.timeout(180_000);
  before(() => useBackend('tensorflow'));
  const cleanup = disposedAfterEach();

  const load = async (
    golden: { dir: string },
    options: CompiledEngineOptions = {},
  ): Promise<{ model: Mamba2ForCausalLM; engine: CompiledEngine }> => {
    const { config, source } = await loadCheckpoint(golden.dir);
    const model = new Mamba2ForCausalLM(config, source);
    const engine = new CompiledEngine(
      model.weights,
      { segments: [8, 16], piece: 4, ...options },
      spreadOf(model.network),
    );
    cleanup.push(model, engine);
    return { model, engine };
  };
  for (const merge_step of [false, true])
    it(`prefills and steps as the golden does (bias-and-limit${merge_step ? ', merged step' : ''})`, async () => {
      const golden = loadGolden('bias-and-limit');
      const { engine } = await load(golden, { merge_step });
      const ids = golden.inputs.input_ids as number[][];
      const steps = golden.inputs.single_steps as number;
      const start = ids[0]!.length - steps;
      const state = await engine.createState(ids.length);
      await engine.prefill(
        state,
        ids.map((r) => Int32Array.from(r.slice(0, start))),
      );
      for (let k = 0; k < steps; k++) {
        await engine.step(
          state,
          Int32Array.from(ids, (r) => r[start + k]!),
        );
        const logits = await engine.logits(state);
        const want = golden.tensor('steps.logits');
        ids.forEach((_, b) => expectClose(logits[b]!, vectorOf(want, b, k), TOLERANCE, `row ${b}, step ${k}`));
      }
      expect(state.seen).to.deep.equal(ids.map((r) => r.length));
    });

  for (const layered of [false, true])
    it(`continues with several tokens and single ones (cached-steps, ${layered ? 'a program a layer' : 'one program'})`, async () => {
      const golden = loadGolden('cached-steps');
      const { engine } = await load(golden, { layered, products: 'float32' });
      const ids = golden.inputs.input_ids as number[][];
      const prefill = golden.inputs.prefill as number;
      const chunk = prefill + (golden.inputs.chunk as number);
      const state = await engine.createState(ids.length);
      const check = async (t: number): Promise<void> => {
        const logits = await engine.logits(state);
        const want = golden.tensor('full.logits');
        ids.forEach((_, b) => expectClose(logits[b]!, vectorOf(want, b, t), TOLERANCE, `row ${b} at ${t}`));
      };
      await engine.prefill(
        state,
        ids.map((r) => Int32Array.from(r.slice(0, prefill))),
      );
      await check(prefill - 1);
      await engine.prefill(
        state,
        ids.map((r) => Int32Array.from(r.slice(prefill, chunk))),
      );
      await check(chunk - 1);
      for (let t = chunk; t < ids[0]!.length; t++) {
        await engine.step(
          state,
          Int32Array.from(ids, (r) => r[t]!),
        );
        await check(t);
      }
    });

  for (const [name, layered] of [
    ['padding', false],
    ['padding-bias', false],
    ['padding-bias', true],
  ] as const) {
    it(`keeps uneven rows apart (${name}${layered ? ', a program a layer' : ''})`, async () => {
      const golden = loadGolden(name);
      const { engine } = await load(golden, layered ? { layered, products: 'float32' } : {});
      const prompts = golden.inputs.prompts as number[][];
      const next = golden.inputs.next_tokens as number[][];
      const state = await engine.createState(prompts.length);
      await engine.prefill(
        state,
        prompts.map((p) => Int32Array.from(p)),
      );
      const first = await engine.logits(state);
      prompts.forEach((p, b) =>
        expectClose(first[b]!, vectorOf(golden.tensor(`alone.${b}.logits`), p.length - 1), TOLERANCE, `row ${b}`),
      );
      for (let k = 0; k < next[0]!.length; k++) {
        await engine.step(
          state,
          Int32Array.from(next, (r) => r[k]!),
        );
        const logits = await engine.logits(state);
        prompts.forEach((_, b) =>
          expectClose(
            logits[b]!,
            vectorOf(golden.tensor(`alone.${b}.steps.logits`), k),
            TOLERANCE,
            `row ${b}, step ${k}`,
          ),
        );
      }
    });
  }

  it('chooses the same greedy tokens as the eager engine, whatever the block', async () => {
    const golden = { dir: 'models/tiny-books-mamba2' };
    const { model, engine } = await load(golden, { dtype: 'float32', segments: [16], block: 4 });
    const eager = new EagerEngine(model.weights);
    const prompt = [Int32Array.of(40, 300, 12, 7, 1500, 3, 9)];
    const want = await greedyOnHost(eager, prompt, 30);
    const state = await engine.createState(1);
    await engine.prefill(state, prompt);
    const got = [
      ...(await engine.decode(state, 11, GREEDY, []))[0]!,
      ...(await engine.decode(state, 19, GREEDY, []))[0]!,
    ];
    expect(got).to.deep.equal(want);
    const ending = want[12]!;
    const first = want.indexOf(ending);
    const again = await engine.createState(1);
    await engine.prefill(again, prompt);
    const cut = (await engine.decode(again, 30, { ...GREEDY, eos: [ending], pad_token_id: 2 }, []))[0]!;
    expect([...cut]).to.deep.equal([...want.slice(0, first + 1), ...new Array<number>(29 - first).fill(2)]);
    expect(again.seen).to.deep.equal([prompt[0]!.length + first + 1]);
  });

  it('draws the same tokens whatever the block', async () => {
    const golden = loadGolden('g1-forward');
    const prompts = [Int32Array.of(4, 30, 12, 7), Int32Array.of(15, 3, 9)];
    const sampling = { ...GREEDY, do_sample: true, temperature: 0.9, top_k: 20, repetition_penalty: 1.3 };
    const uniforms = prompts.map((_, i) =>
      Float32Array.from({ length: 11 }, (_, k) => ((k * 37 + i * 53) % 101) / 101),
    );
    const drawn = [];
    for (const block of [1, 4]) {
      const { engine } = await load(golden, { dtype: 'float32', segments: [16], block });
      const state = await engine.createState(2);
      await engine.prefill(state, prompts);
      drawn.push(await engine.decode(state, 11, sampling, prompts, uniforms));
    }
    expect(drawn[1]).to.deep.equal(drawn[0]);
    expect(new Set(drawn[0]![0]).size).greaterThan(4);
  });

  for (const state_dtype of ['float32', 'bfloat16'] as const)
    it(`leaves a finished row as it is while others go on (states in ${state_dtype})`, async () => {
      const golden = loadGolden('padding');
      const { engine } = await load(golden, { state_dtype });
      const prompts = (golden.inputs.prompts as number[][]).map((p) => Int32Array.from(p));
      const [done, pad_token_id, count] = [1, 1, 5];
      expect(prompts.length).to.be.greaterThan(done);
      const state = await engine.createState(prompts.length);
      await engine.prefill(state, prompts);
      const before = await engine.logits(state);
      const finished = prompts.map((_, i) => i === done);
      const chosen = await engine.decode(state, count, { ...GREEDY, pad_token_id }, [], undefined, finished);
      expect([...chosen[done]!]).to.deep.equal(new Array(count).fill(pad_token_id));
      const after = await engine.logits(state);
      expectClose(after[done]!, before[done]!, 0, 'finished row');
      expect(state.seen).to.deep.equal(prompts.map((p, i) => p.length + (i === done ? 0 : count)));
      const other = prompts.length - 1 === done ? 0 : prompts.length - 1;
      const alone = await engine.createState(1);
      await engine.prefill(alone, [prompts[other]!]);
      expect([...(await engine.decode(alone, count, GREEDY, []))[0]!]).to.deep.equal([...chosen[other]!]);
    });

  for (const fixed_blocks of [false, true])
    it(`ends a lone row within a block (${fixed_blocks ? 'of fixed length' : 'counted'})`, async () => {
      const golden = loadGolden('padding');
      const { engine } = await load(golden, { fixed_blocks, block: 8 });
      const prompt = Int32Array.from((golden.inputs.prompts as number[][]).at(-1)!);
      const after = async (
        sampling: EngineSampling,
        counts: number[],
      ): Promise<{ tokens: number[]; seen: number; logits: Float32Array }> => {
        const state = await engine.createState(1);
        await engine.prefill(state, [prompt]);
        const tokens: number[] = [];
        for (const count of counts) tokens.push(...(await engine.decode(state, count, sampling, []))[0]!);
        const out = { tokens, seen: state.seen[0]!, logits: (await engine.logits(state))[0]! };
        state.dispose();
        return out;
      };
      const free = await after(GREEDY, [5]);
      // the last of the first four that was not written before: ends there, and not earlier
      const last = [3, 2, 1, 0].find((i) => free.tokens.indexOf(free.tokens[i]!) === i)!;
      const ended = await after({ ...GREEDY, eos: [free.tokens[last]!] }, [5]);
      const written = free.tokens.slice(0, last + 1);
      expect(ended.tokens).to.deep.equal([...written, ...new Array<number>(5 - written.length).fill(0)]);
      expect(ended.seen).to.equal(prompt.length + written.length);
      // what a prompt of these tokens leads to
      for (const { tokens, logits } of [{ ...free }, { ...ended, tokens: written }]) {
        const state = await engine.createState(1);
        await engine.prefill(state, [Int32Array.from([...prompt, ...tokens])]);
        expectClose(logits, (await engine.logits(state))[0]!, TOLERANCE, `after ${tokens.length} tokens`);
        state.dispose();
      }
      // parts of blocks, a whole one and more, one token
      const long = await after(GREEDY, [21]);
      const parts = await after(GREEDY, [3, 8, 1, 9]);
      expect(parts.tokens).to.deep.equal(long.tokens);
      expect(parts.seen).to.equal(prompt.length + 21);
      expectClose(parts.logits, long.logits, TOLERANCE, 'in parts');
    });

  for (const state_dtype of ['float32', 'bfloat16'] as const)
    it(`keeps states apart: clone, select, switching and disposal (states in ${state_dtype})`, async () => {
      const golden = loadGolden('g1-forward');
      const { engine } = await load(golden, { state_dtype });
      const all = (golden.inputs.input_ids as number[][]).flat();
      const half = Math.floor(all.length / 2);
      const state = await engine.createState(2);
      await engine.prefill(state, [Int32Array.from(all.slice(0, half)), Int32Array.from(all.slice(half, 2 * half))]);
      const base = await engine.logits(state);
      const copy = await state.clone();
      await engine.step(state, Int32Array.of(5, 6));
      expectClose((await engine.logits(copy))[0]!, base[0]!, 1e-6, 'clone after the original moved on');
      const swapped = await copy.select([1, 0]);
      copy.dispose();
      const reordered = await engine.logits(swapped);
      expectClose(reordered[0]!, base[1]!, 1e-6, 'row 0 of [1, 0]');
      expectClose(reordered[1]!, base[0]!, 1e-6, 'row 1 of [1, 0]');
      const wide = await swapped.select([0, 0, 1]);
      const logits = await engine.logits(wide);
      expectClose(logits[1]!, base[1]!, 1e-5, 'row 1 of [0, 0, 1]');
      expectClose(logits[2]!, base[0]!, 1e-5, 'row 2 of [0, 0, 1]');
      await engine.step(swapped, Int32Array.of(6, 5));
      const left = await engine.logits(swapped);
      const right = await engine.logits(state);
      expectClose(left[0]!, right[1]!, 1e-5, 'same tokens, other row');
      for (const s of [state, swapped, wide]) s.dispose();
      let message = '';
      await engine.logits(state).catch((error: Error) => (message = error.name));
      expect(message).to.equal('DisposedError');
    });

  it('does not grow over many steps', async () => {
    const golden = loadGolden('g1-forward');
    const { engine } = await load(golden);
    const state = await engine.createState(2);
    await engine.prefill(state, [Int32Array.of(5, 6, 7), Int32Array.of(8)]);
    await engine.decode(state, 4, GREEDY, []);
    await engine.step(state, Int32Array.of(1, 2));
    await engine.logits(state);
    const start = tensorCount();
    await engine.decode(state, 50, GREEDY, []);
    const id = (i: number): number => i % engine.vocab_size;
    for (let i = 0; i < 50; i++) await engine.step(state, Int32Array.of(id(i), id(i + 1)));
    await engine.logits(state);
    expect(tensorCount()).to.deep.equal(start);
  });

  it('refuses options that it does not have, with what it got and what it expects', async () => {
    const { model } = await load(loadGolden('g1-forward'));
    const refused: [string, unknown, RegExp][] = [
      ['dtype', 'float16', /dtype is "float16"; expected 'auto', 'float32' or 'bfloat16'/],
      ['products', 'float16', /products is "float16"; expected 'auto', 'float32' or 'bfloat16'/],
      ['state_dtype', 'float16', /state_dtype is "float16"; expected 'float32' or 'bfloat16'/],
      ...[0, -1, 1.5, NaN, '4', null].flatMap((value): [string, unknown, RegExp][] => [
        ['block', value, /block is .*; expected an integer of 1 or more/],
        ['chunk_size', value, /chunk_size is .*; expected an integer of 1 or more/],
        ['segments', [value, 16], /segments is .*; expected a list of at least one of lengths/],
        ['batches', [value], /batches is .*; expected a list of batch sizes/],
      ]),
      ['block', Infinity, /block is Infinity/],
      ['segments', [], /segments is \[\]; expected a list of at least one/],
      ['segments', 16, /segments is 16/],
      ['merge_step', 'no', /merge_step is "no"; expected true or false/],
      ['layered', 1, /layered is 1/],
      ['fixed_blocks', 0, /fixed_blocks is 0/],
      ['on_compile', true, /on_compile is true; expected a function/],
    ];
    for (const [option, got, message] of refused) {
      const made = (): CompiledEngine => new CompiledEngine(model.weights, { [option]: got });
      expect(made, `${option}: ${String(got)}`)
        .to.throw(ArgumentError, message)
        .with.property('data')
        .that.includes({ option });
    }
    // one given twice is one, and what is left out has its default
    const engine = new CompiledEngine(model.weights, {
      segments: [8, 8],
      batches: [1, 1],
      block: undefined,
      dtype: undefined,
    });
    cleanup.push(engine);
    const state = await engine.createState(1);
    await engine.prefill(state, [Int32Array.of(1, 2, 3)]);
    expect(state.seen).to.deep.equal([3]);
  });

  it('goes on after a batch that no memory holds, with states as they were', async () => {
    const { model } = tinyModel({ head_dim: 64, num_heads: 8, hidden_size: 256, state_size: 128 });
    const engine = new CompiledEngine(model.weights, { segments: [8] });
    cleanup.push(model, engine);
    const prompt = [Int32Array.of(3, 1, 4, 1, 5)];
    const state = await engine.createState(1);
    await engine.prefill(state, prompt);
    const before = (await engine.logits(state))[0]!;
    const huge = await engine.createState(2 ** 22); // 2 TiB of states
    for (let i = 0; i < 2; i++) {
      await rejection(engine.logits(huge));
      expectClose((await engine.logits(state))[0]!, before, 0, 'the state before');
    }
    const pair = await engine.createState(2);
    await engine.prefill(pair, [...prompt, ...prompt]);
    expectClose((await engine.logits(pair))[1]!, before, TOLERANCE, 'another size');
  });

  it('refuses bad ids, states of another engine and unfed rows', async () => {
    const { model, engine } = await load(loadGolden('g1-forward'));
    const state = await engine.createState(1);
    const name = (promise: Promise<unknown>): Promise<string> =>
      promise.then(
        () => 'nothing',
        (error: Error) => `${error.name}: ${error.message}`,
      );
    const v = engine.vocab_size;
    expect(await name(engine.prefill(state, [Int32Array.of(v)]))).to.match(
      new RegExp(`ArgumentError: Row 0 of prefill holds ${v} .* expected ids from 0 to ${v - 1}`),
    );
    expect(await name(engine.logits(state))).to.match(/GenerationError: logits: row 0/);
    expect(await name(engine.step(await new EagerEngine(model.weights).createState(1), Int32Array.of(1)))).to.match(
      /another engine/,
    );
    expect(await name(engine.step(state, Int32Array.of(1, 2)))).to.match(/1 rows, got 2/);
  });

  it('bfloat16 states stay near float32, also when parked', async () => {
    const golden = loadGolden('g1-forward');
    const { model, engine } = await load(golden, { state_dtype: 'bfloat16' });
    const eager = new EagerEngine(model.weights);
    const ids = [Int32Array.from((golden.inputs.input_ids as number[][])[0]!)];
    const [a, b] = [await engine.createState(1), await eager.createState(1)];
    await engine.prefill(a, ids);
    await eager.prefill(b, ids);
    const other = await engine.createState(1);
    await engine.prefill(other, ids); // parks the first
    const steps = 5;
    for (let i = 0; i < steps; i++) {
      await engine.step(a, Int32Array.of(i));
      await eager.step(b, Int32Array.of(i));
    }
    // rounded in every layer after the prompt and after each step
    expectRounded(
      (await engine.logits(a))[0]!,
      (await eager.logits(b))[0]!,
      model.config.num_hidden_layers * (1 + steps),
    );
  });

  it('bfloat16 matrices stay near float32', async () => {
    const dir = 'models/tiny-books-mamba2';
    const { model, engine } = await load({ dir }, { dtype: 'bfloat16', segments: [32] });
    const eager = new EagerEngine(model.weights);
    const prompt = [Int32Array.from({ length: 30 }, (_, i) => (i * 71) % model.config.vocab_size)];
    const [a, b] = [await engine.createState(1), await eager.createState(1)];
    await engine.prefill(a, prompt);
    await eager.prefill(b, prompt);
    const [got, want] = [(await engine.logits(a))[0]!, (await eager.logits(b))[0]!];
    // the matrices are bfloat16 in the checkpoint; what they multiply is rounded, twice a layer and before the head, for instructions that take
    // bfloat16; processors without them widen the matrices
    const rounds = onGpu() || cpuFeatures().some((name) => name === 'avx512_bf16' || name === 'amx_bf16');
    if (rounds) expectRounded(got, want, 2 * model.config.num_hidden_layers + 1);
    else expectClose(got, want, 1e-4 * Math.max(...want.map(Math.abs)), 'logits');
  });

  it('with float32 products a prompt of bfloat16 matrices is what its tokens are one by one', async function () {
    if (onGpu()) this.skip(); // an option for CPUs

    const dir = 'models/tiny-books-mamba2';
    const { model, engine } = await load({ dir }, { dtype: 'bfloat16', segments: [32], products: 'float32' });
    const prompt = Int32Array.from({ length: 30 }, (_, i) => (i * 71) % model.config.vocab_size);
    const [a, b] = [await engine.createState(1), await engine.createState(1)];
    await engine.prefill(a, [prompt]);
    const whole = (await engine.logits(a))[0]!;
    await engine.prefill(b, [prompt.slice(0, 1)]);
    for (const token of prompt.slice(1)) await engine.step(b, Int32Array.of(token));
    expectClose((await engine.logits(b))[0]!, whole, 1e-4 * Math.max(...whole.map(Math.abs)), 'logits');
  });

  it('with bfloat16 products tokens round what meets the matrices, alike in any number of rows', async function () {
    if (onGpu() || layerInstructions().length === 0) this.skip(); // elsewhere nothing rounds tokens

    const dir = 'models/tiny-books-mamba2';
    const logitsOf = async (products: 'float32' | 'bfloat16', rows: number): Promise<Float32Array> => {
      const { model, engine } = await load({ dir }, { dtype: 'bfloat16', segments: [16], batches: [rows], products });
      const state = await engine.createState(rows);
      await engine.prefill(
        state,
        Array.from({ length: rows }, () => Int32Array.of(5)),
      );
      for (let i = 0; i < 4; i++)
        await engine.step(state, new Int32Array(rows).fill((i * 71) % model.config.vocab_size));
      return (await engine.logits(state))[rows - 1]!;
    };
    const exact = await logitsOf('float32', 1);
    const alone = await logitsOf('bfloat16', 1);
    expectRounded(alone, exact, 2 * 8 + 1);
    // sums of float32 in another order may fall on the other side of the middle of two numbers of bfloat16, and grow with each token: after a few of
    // them, next to nothing is to be seen of it
    const size = Math.sqrt(exact.reduce((sum, x) => sum + x * x, 0) / exact.length);
    const off = (got: Float32Array, want: Float32Array): number => largestDifference(got, want).difference / size;
    expect(off(await logitsOf('bfloat16', 5), alone)).to.be.below(off(alone, exact) / 100);
  });
});

/** That logits are what they are in float32 but for `count` roundings to bfloat16, and that these took place. */
function expectRounded(got: Float32Array, want: Float32Array, count: number): void {
  const size = Math.sqrt(want.reduce((sum, x) => sum + x * x, 0) / want.length);
  expectClose(got, want, bfloat16Bound(count) * size, 'logits');
  // float32's own roundings come to a few millionths
  expect(largestDifference(got, want).difference / size, 'rounding').to.be.greaterThan(1e-4);
}

async function greedyOnHost(engine: GenerationEngine, prompt: Int32Array[], count: number): Promise<number[]> {
  const state = await engine.createState(1);
  await engine.prefill(state, prompt);
  const out: number[] = [];
  for (let i = 0; i < count; i++) {
    const logits = (await engine.logits(state))[0]!;
    const best = logits.indexOf(logits.reduce((x, y) => Math.max(x, y), -Infinity));
    out.push(best);
    await engine.step(state, Int32Array.of(best));
  }
  state.dispose();
  return out;
}
