import { expect } from 'chai';
import { generate, GenerationConfig } from '../../src/generation/index.js';
import type { GenerateInputs, GenerateOutput, GenerationEngine } from '../../src/generation/index.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { Tokenizer } from '../../src/tokenizers/index.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { rejection } from '../support/errors.js';
import { goldenDir, loadGolden, vectorOf } from '../support/goldens.js';
import { spreadOptions } from '../support/spread.js';

interface Run {
  name: string;
  batch?: boolean;
  prompt?: number | 'batch';
  kwargs: Partial<GenerateInputs>;
  new_tokens: number[][];
  sequences_scores?: number[];
}

for (const kind of ['eager', 'compiled'] as const) {
  describe(`golden generation (${kind} engine)`, function () {
    this.timeout(300_000);
    let model: Mamba2ForCausalLM;
    let engine: GenerationEngine;
    let config: GenerationConfig;

    const load = async (dir: string): Promise<void> => {
      await useBackend('tensorflow');
      model = await Mamba2ForCausalLM.from_pretrained(dir, {
        ...{ engine: kind, dtype: 'float32' },
        ...(kind === 'compiled' && spreadOptions()),
      });
      engine = await model.engine();
      config = await GenerationConfig.from_pretrained(dir, { ...model.config });
    };
    const run = (inputs: GenerateInputs): Promise<GenerateOutput> => generate(engine, config, inputs);

    describe('generate-greedy', () => {
      const golden = loadGolden('generate-greedy');
      const prompts = golden.inputs.prompts as number[][];
      before(() => load(goldenDir('generate-greedy')));
      after(() => model.dispose());

      for (const { name, batch, kwargs, new_tokens } of golden.json.runs as Run[]) {
        it(`${name}`, async () => {
          if (batch) {
            const { input_ids, attention_mask } = golden.inputs.left_padded as GenerateInputs;
            const output = await run({ input_ids, attention_mask, ...kwargs });
            const width = (input_ids as number[][])[0]!.length;
            expect(output.sequences.map((row) => row.slice(width))).to.deep.equal(new_tokens);
            return;
          }
          for (const [i, want] of new_tokens.entries()) {
            expect((await run({ input_ids: [prompts[i]!], ...kwargs })).new_tokens).to.deep.equal([want]);
          }
        });
      }

      it('the logits of each step', async () => {
        const want = golden.tensor('step_logits'); // [prompts, steps, vocabulary], of run `greedy`
        const { kwargs } = (golden.json.runs as Run[]).find(({ name }) => name === 'greedy')!;
        const { logits } = await run({ input_ids: prompts, ...kwargs, output_logits: true });
        expect([prompts.length, logits!.length, engine.vocab_size]).to.deep.equal(want.shape);
        let worst = 0;
        logits!.forEach((rows, step) =>
          rows.forEach((row, b) => {
            const expected = vectorOf(want, b, step);
            row.forEach((x, i) => (worst = Math.max(worst, Math.abs(x - expected[i]!))));
          }),
        );
        expect(worst).to.be.below(1e-4);
      });

      it('leaves no tensors behind, whatever the way to the end', async () => {
        // the ids of the small model are some of this tokenizer's
        const tokenizer = await Tokenizer.from_pretrained('models/tiny-books-mamba2');
        const options: Partial<GenerateInputs>[] = [
          {},
          { do_sample: true, num_return_sequences: 2, seed: 1 },
          { num_beams: 2 },
          { guidance_scale: 1.5 },
          { stop_strings: ['e'], tokenizer },
        ];
        const all = async (): Promise<void> => {
          for (const o of options) await run({ input_ids: [prompts[0]!], max_new_tokens: 6, ...o });
          const controller = new AbortController();
          const streamer = { put: () => controller.abort(), end: () => {} };
          const aborted = { max_new_tokens: 6, streamer, signal: controller.signal };
          const error = await rejection(run({ input_ids: [prompts[0]!], ...aborted }));
          expect(error.name).to.equal('AbortError');
        };
        await all();
        const before = tensorCount();
        await all();
        expect(tensorCount()).to.deep.equal(before);
      });
    });

    describe('generate-beam', () => {
      const golden = loadGolden('generate-beam');
      const prompts = golden.inputs.prompts as number[][];
      before(() => load(goldenDir('generate-beam')));
      after(() => model.dispose());

      for (const { name, prompt, kwargs, new_tokens, sequences_scores } of golden.json.runs as Run[]) {
        it(`${name}`, async () => {
          const batch = golden.inputs.left_padded as GenerateInputs;
          const inputs = prompt === 'batch' ? batch : { input_ids: [prompts[prompt as number]!] };
          const width = (inputs.input_ids as number[][])[0]!.length;
          const output = await run({ ...inputs, ...kwargs });
          expect(output.sequences.map((row) => row.slice(width))).to.deep.equal(new_tokens);
          expect(output.sequences_scores).to.have.length(sequences_scores!.length);
          sequences_scores!.forEach((want, i) => {
            const tolerance = Math.max(1e-4, 1e-5 * Math.abs(want));
            expect(output.sequences_scores![i]).to.be.closeTo(want, tolerance);
          });
        });
      }
    });

    describe('books-model', () => {
      const golden = loadGolden('books-model');
      const runs = golden.json.runs as {
        prompt: string;
        prompt_ids: number[];
        new_tokens: number[];
        full_text: string;
      }[];
      let tokenizer: Tokenizer;
      before(async () => {
        await load('models/tiny-books-mamba2');
        tokenizer = await Tokenizer.from_pretrained('models/tiny-books-mamba2');
      });
      after(() => model.dispose());

      it('continues all prompts together as transformers does each alone', async () => {
        const batch = await tokenizer.batch_encode(runs.map((r) => r.prompt));
        const { new_tokens } = await run({ ...batch, tokenizer, max_new_tokens: runs[0]!.new_tokens.length });
        expect(new_tokens).to.deep.equal(runs.map((r) => r.new_tokens));
        const texts = await tokenizer.batch_decode(runs.map((r, i) => [...r.prompt_ids, ...new_tokens[i]!]));
        expect(texts).to.deep.equal(runs.map((r) => r.full_text));
      });
    });
  });
}
