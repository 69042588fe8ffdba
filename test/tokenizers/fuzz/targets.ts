/** Readers of tokenizer files, for damaged ones (test/support/fuzz.ts). */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Tokenizer } from '../../../src/tokenizers/index.js';
import type { TokenizerBackendName } from '../../../src/tokenizers/index.js';
import type { FuzzTarget, FuzzTargets } from '../../support/fuzz.js';
import { sampleTokenizers } from './samples.js';

const MODEL = 'models/tiny-books-mamba2';
const TEXT = 'Hello,  world! 123 don’t été 中文 😀 <|endoftext|>\n';

const folder = mkdtempSync(path.join(process.env.FUZZ_FOLDER ?? os.tmpdir(), 'tokenizers-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** Loads a folder of files, encodes a text and decodes it. */
async function attempt(files: Record<string, Uint8Array>, backend?: TokenizerBackendName): Promise<void> {
  // what another kind left
  for (const name of readdirSync(folder)) if (!(name in files)) rmSync(path.join(folder, name));
  for (const [name, bytes] of Object.entries(files)) writeFileSync(path.join(folder, name), bytes);
  const tokenizer = await Tokenizer.from_pretrained(folder, { backend });
  const ids = await tokenizer.encode(TEXT);
  await tokenizer.decode(ids, { skip_special_tokens: true });
}

function json(file: string, backend?: TokenizerBackendName): FuzzTarget {
  const others = file === 'tokenizer.json' ? [] : ['tokenizer.json'];
  const files = Object.fromEntries(others.map((name) => [name, readFileSync(path.join(MODEL, name))]));
  return {
    kind: 'json',
    samples: () => [readFileSync(path.join(MODEL, file))],
    attempt: (bytes) => attempt({ ...files, [file]: bytes }, backend),
  };
}

/** Tokenizers of all kinds of parts, each of which is damaged as often. */
function parts(backend: TokenizerBackendName): FuzzTarget {
  return {
    kind: 'json',
    samples: () => sampleTokenizers().map((each) => Buffer.from(JSON.stringify(each))),
    attempt: (bytes) => attempt({ 'tokenizer.json': bytes, 'tokenizer_config.json': Buffer.from('{}') }, backend),
  };
}

export const fuzzTargets: FuzzTargets = {
  'all parts': parts('native'),
  'all parts (javascript)': parts('javascript'),
  'tokenizer.json': json('tokenizer.json'),
  'tokenizer.json (javascript)': json('tokenizer.json', 'javascript'),
  'tokenizer_config.json': json('tokenizer_config.json'),
  'tokenizer.model': {
    kind: 'bytes',
    samples: () =>
      ['mistral', 'bpe-nmt', 'unigram'].map((name) => readFileSync(`test/fixtures/sentencepiece/${name}.model`)),
    attempt: (bytes) => attempt({ 'tokenizer.model': bytes }),
  },
};
