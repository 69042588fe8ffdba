/** SFTTrainer: lists and streams of texts, for training and for evaluation. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { AutoTokenizer } from '../../src/models/auto/index.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import type { Tokenizer } from '../../src/tokenizers/index.js';
import { SFTTrainer, type SFTTrainerOptions } from '../../src/training/index.js';
import { useBackend } from '../support/backends.js';

describe('SFTTrainer', () => {
  let tokenizer: Tokenizer;
  let model: Mamba2ForCausalLM;
  let dir: string;
  before(async () => {
    await useBackend('tensorflow');
    tokenizer = await AutoTokenizer.from_pretrained('models/tiny-books-mamba2');
    model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2', { engine: 'eager' });
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sft-'));
  });
  after(() => {
    model.dispose();
    fs.rmSync(dir, { recursive: true, force: true });
  });

  const texts = [{ text: 'Brevity is the soul of wit.' }, { text: 'To be, or not to be: that is the question.' }];
  const make = (more: Partial<SFTTrainerOptions>, args: Partial<SFTTrainerOptions['args']> = {}): SFTTrainer =>
    new SFTTrainer({
      model,
      processing_class: tokenizer,
      args: { output_dir: dir, engine: 'eager', max_length: 12, ...args },
      ...more,
    });

  it('evaluates a stream and a list to the same, whichever of the two it trains on', async () => {
    const stream = async function* () {
      for (const text of texts) yield Promise.resolve(text);
    };
    const found: number[] = [];
    for (const train_dataset of [texts, stream]) {
      for (const eval_dataset of [texts, stream]) {
        const trainer = make({ train_dataset, eval_dataset });
        const { eval_loss, eval_tokens } = await trainer.evaluate();
        expect(eval_tokens).to.be.within(12, 2 * 11);
        found.push(eval_loss);
        trainer.dispose();
      }
    }
    expect(found[0]).to.be.within(0.1, 10);
    for (const loss of found) expect(loss).to.be.closeTo(found[0]!, 1e-5);
  });

  it('refuses an eval_strategy without eval_dataset at once', () => {
    expect(() => make({ train_dataset: texts }, { eval_strategy: 'epoch' })).to.throw(
      /eval_strategy is 'epoch' and there is no eval_dataset/,
    );
    make({ train_dataset: texts, eval_dataset: texts }, { eval_strategy: 'epoch' }).dispose();
  });
});
