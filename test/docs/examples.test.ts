/** Every @example of the sources runs. What it leaves to the reader (a model, a file) is made here. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import * as api from '../../src/index.js';
import * as checkpoints from '../../src/checkpoints.js';
import * as jit from '../../src/jit/index.js';
import * as mamba2 from '../../src/models/mamba2/index.js';
import * as peft from '../../src/peft/index.js';
import * as quant from '../../src/quant/index.js';
import * as runtime from '../../src/runtime/index.js';
import * as training from '../../src/training/index.js';
import { useBackend } from '../support/backends.js';
import { fencedFiles, findExamples, runExample } from '../support/examples.js';
import { tinyModel } from '../support/tiny_model.js';

/** What a user's file can import. An example sees what its own file exports too. */
const ROOMS = [checkpoints, jit, mamba2, peft, quant, runtime, training, api];
const BOOKS = 'models/tiny-books-mamba2';
const root = fileURLToPath(new URL('../../', import.meta.url));

/** Examples that a test must not run, and why. */
const NOT_RUN: Record<string, string> = {
  'models/checkpoints.ts resolveModel': 'downloads',
  'runtime/setup.ts setupRuntime': 'downloads',
  'browser/files/picked.ts folderOfFiles': 'works in a page: test/browser/http.test.ts',
  'worker.ts startWorker': 'works in a page: test/browser/worker.test.ts',
  'runtime/environment.ts configureRuntime': 'works only before TensorFlow is loaded',
};

type Made = Record<string, unknown>;

/** A small model, and a tokenizer whose ids it has. */
const talker = async (): Promise<Made> => ({
  model: tinyModel({ vocab_size: 4096 }).model,
  tokenizer: await api.AutoTokenizer.from_pretrained(BOOKS),
  input_ids: [[5, 7]],
});

/** Names that an example takes for granted, made afresh for it. */
const GIVEN: Record<string, () => Made | Promise<Made>> = {
  'checkpoints/safetensors_writer.ts writeSafetensors': () => ({ bytes: new Uint8Array(4) }),
  'checkpoints/save.ts saveCheckpoint': async () => ({ source: await checkpoints.openCheckpoint(BOOKS), tensors: [] }),
  'jit/ops/raw_op.ts rawOp': () => ({ packed: jit.constantOf([0x21, 0xf0], [2], 'uint8') }),
  'generation/chat_session.ts ChatSession': async () => {
    const { model, tokenizer } = await talker();
    Object.defineProperty(tokenizer, 'chat_templates', { value: { default: '{{ messages[-1].content }}' } });
    return { model, tokenizer };
  },
  'generation/config.ts GenerationConfig': () => ({ model: tinyModel().model }),
  'generation/generate.ts generate': async () => {
    const { model } = tinyModel();
    return { model, engine: await model.engine() };
  },
  'generation/streamers.ts TextIteratorStreamer': talker,
  'generation/streamers.ts TextStreamer': talker,
  'layers/einsum.ts einsum': () => ({ B: tf.ones([2, 3, 4]), C: tf.ones([2, 5, 4]) }),
  'layers/ssd.ts ssdChunkScan': () => ({
    x: tf.ones([1, 5, 2, 3]),
    dt: tf.ones([1, 5, 2]),
    A: tf.tensor1d([-1, -2]),
    B: tf.ones([1, 5, 1, 4]),
    C: tf.ones([1, 5, 1, 4]),
  }),
  'models/mamba2/cache.ts Mamba2Cache': () => ({ model: tinyModel().model }),
  'models/causal_lm.ts forwardAsync': () => ({ model: tinyModel().model }),
  'models/causal_lm.ts generate': () => ({ model: tinyModel().model }),
  'models/causal_lm.ts warmup': () => ({ model: tinyModel().model }),
  'engine/eager_engine.ts EagerEngine': () => ({ weights: tinyModel().model.weights }),
  'peft/files.ts save_adapter': () => ({ peft: peft.get_peft_model(tinyModel().model, { r: 2 }) }),
  'peft/files.ts load_peft_model': async () => {
    await peft.save_adapter(peft.get_peft_model(tinyModel().model, { r: 2 }), 'my-adapter');
    return { model: tinyModel().model };
  },
  'peft/model.ts forwardAsync': () => ({ model: tinyModel().model }),
  'peft/model.ts get_peft_model': () => ({ model: tinyModel().model }),
  'peft/model.ts merge_and_unload': () => ({ peft: peft.get_peft_model(tinyModel().model, { r: 2 }) }),
  'pipelines/perplexity.ts perplexity': async () => ({ ...(await talker()), text: 'Once upon a time' }),
  'quant/matrix.ts QuantizedLinear': () => ({ values: Float32Array.from({ length: 64 * 128 }, (_, i) => Math.sin(i)) }),
  'runtime/load.ts loadTensorFlow': () => ({ a: tf.ones([1, 1]), b: tf.ones([1, 1]) }),
  'tokenizers/incremental.ts IncrementalDecoder': async () => ({ ...(await talker()), ids: [5, 7, 9], text: '' }),
  'training/fit.ts CausalLMTrainer': () => ({ model: tinyModel().model }),
  'training/fit.ts predictAsync': () => ({ model: tinyModel().model }),
  'training/trainer.ts Trainer': () => ({ model: tinyModel().model, train_dataset: [{ input_ids: [1, 2, 3, 4] }] }),
  'training/sft_trainer.ts SFTTrainer': async () => {
    fs.writeFileSync('quotes.jsonl', '{"text": "Brevity is the soul of wit."}\n');
    const tokenizer = await api.AutoTokenizer.from_pretrained(BOOKS);
    return { model: tinyModel({ vocab_size: 4096 }).model, tokenizer };
  },
  'training/adamw_optimizer.ts AdamW': () => {
    const weight = tf.variable(tf.tensor1d([1, 2]));
    return { variables: [weight], loss: () => tf.sum(tf.square(weight)) };
  },
};

/** Code around an example that stands within something. */
const AROUND: Record<string, (code: string) => string> = {
  'jit/ops/while_loop.ts whileLoop': (code) => `const result = jit(() => {\n  ${code}\n  return n;\n})();`,
};

describe('examples of the documentation', () => {
  const examples = findExamples();
  let dir: string;
  let scope: Record<string, unknown>;
  const home = process.cwd();

  before(async () => {
    await useBackend('tensorflow');
    // everything that the package exports, and tf, as after the imports of a user's file
    scope = Object.assign({ tf }, ...ROOMS) as Record<string, unknown>;
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'examples-'));
    const books = path.join(root, 'models', 'tiny-books-mamba2');
    fs.symlinkSync(path.join(root, 'models'), path.join(dir, 'models'));
    for (const name of ['mamba2-130m', 'mamba2-2.7b']) fs.symlinkSync(books, path.join(dir, name));
    fs.writeFileSync(path.join(dir, 'README.md'), '# A text\n');
    fs.writeFileSync(path.join(dir, 'train.jsonl'), '{"text": "Once upon a time"}\n');
    fs.symlinkSync(path.join(books, 'model.safetensors'), path.join(dir, 'model.safetensors'));
    process.chdir(dir);
  });
  after(() => {
    process.chdir(home);
    fs.rmSync(dir, { recursive: true });
  });

  it('are found', () => {
    expect(examples.length).to.be.greaterThan(20);
    const titles = examples.map(({ title }) => title);
    for (const title of [...Object.keys(NOT_RUN), ...Object.keys(GIVEN), ...Object.keys(AROUND)])
      expect(titles).to.include(title);
  });

  it('have one form', () => expect(fencedFiles()).to.deep.equal([]));

  for (const { title, file, code } of examples) {
    const why = NOT_RUN[title];
    (why ? it.skip : it)(why ? `${title} (${why})` : title, async () => {
      try {
        await runExample(AROUND[title]?.(code) ?? code, {
          ...scope,
          ...((await import(file)) as Made),
          ...(await GIVEN[title]?.()),
        });
      } catch (error) {
        if (!(error instanceof ReferenceError)) throw error;
        throw new Error(`${error.message}: the example takes it for granted; make it in GIVEN`, { cause: error });
      }
    });
  }
});
