import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { TokenizerError } from '../../src/base/errors.js';
import { IncrementalDecoder, Tokenizer } from '../../src/tokenizers/index.js';
import type { ChatMessage, TokenizerBackendName } from '../../src/tokenizers/index.js';
import { rejection } from '../support/errors.js';
import { lcg } from '../support/random.js';

const FIXTURES = 'test/fixtures/sentencepiece';

interface Expected {
  [model: string]: { vocab_size: number; cases: { text: string; ids: number[]; decoded: string }[] };
}

describe('SentencePiece models', () => {
  let dir: string;
  let expected: Expected;
  let chat: { messages: ChatMessage[]; ids: number[] };
  before(async () => {
    ({ chat, ...expected } = JSON.parse(await readFile(`${FIXTURES}/expected.json`, 'utf8')) as typeof expected & {
      chat: typeof chat;
    });
  });
  beforeEach(async () => {
    dir = await mkdtemp(path.join(os.tmpdir(), 'sentencepiece-'));
  });
  afterEach(() => rm(dir, { recursive: true }));

  async function load(model: string, backend?: TokenizerBackendName): Promise<Tokenizer> {
    await cp(`${FIXTURES}/${model}.model`, path.join(dir, 'tokenizer.model.v3'));
    return Tokenizer.from_pretrained(dir, { backend });
  }

  for (const model of ['mistral', 'bpe-nmt', 'unigram']) {
    it(`${model}: the ids and texts that SentencePiece gives, after a beginning-of-text token`, async () => {
      const tokenizer = await load(model);
      const { vocab_size, cases } = expected[model]!;
      expect(tokenizer.vocab_size).to.equal(vocab_size);
      expect(cases.length).to.be.above(30);
      for (const { text, ids, decoded } of cases) {
        expect(await tokenizer.encode(text), JSON.stringify(text)).to.deep.equal([1, ...ids]);
        expect(await tokenizer.encode(text, { add_special_tokens: false })).to.deep.equal(ids);
        expect(await tokenizer.decode(ids), JSON.stringify(text)).to.equal(decoded);
      }
    });
  }

  for (const model of ['mistral', 'bpe-nmt']) {
    it(`${model} in pure JavaScript: the same`, async () => {
      const tokenizer = await load(model, 'javascript');
      for (const { text, ids, decoded } of expected[model]!.cases) {
        expect(await tokenizer.encode(text), JSON.stringify(text)).to.deep.equal([1, ...ids]);
        expect(await tokenizer.decode(ids), JSON.stringify(text)).to.equal(decoded);
      }
    });
  }

  it('follow their charsmap in pure JavaScript as the native implementation does', async () => {
    const [native, javascript] = [await load('bpe-nmt', 'native'), await load('bpe-nmt', 'javascript')];
    const random = lcg(23);
    const alphabet = [
      ...'ab ﬁ½²Ⅷǅ①ｱｶﾞ．～ａ１\u0301\u200b\u200d\u2028\u3000\u00a0\u0007\ufeffé한글ﷺ👩🇫🇷👍🏽\u00ad\u0378㌀',
    ];
    for (let i = 0; i < 300; i++) {
      const text = Array.from({ length: 1 + i / 10 }, () => alphabet[Math.floor(random() * alphabet.length)]).join('');
      expect(await javascript.encode(text), JSON.stringify(text)).to.deep.equal(await native.encode(text));
    }
  });

  it('takes special tokens from the model, and knows the chat format of Mistral by its control tokens', async () => {
    const tokenizer = await load('mistral');
    expect([tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]).to.deep.equal([0, 1, 2]);
    expect(tokenizer.pad_token_id).to.equal(null);
    expect(await tokenizer.apply_chat_template(chat.messages)).to.deep.equal(chat.ids);
    const plain = await load('unigram');
    expect(await rejection(plain.apply_chat_template(chat.messages))).to.be.instanceOf(TokenizerError);
  });

  it('streams whole characters and keeps the spaces', async () => {
    const tokenizer = await load('mistral');
    for (const { ids, decoded } of expected.mistral!.cases) {
      const decoder = new IncrementalDecoder(tokenizer);
      let text = '';
      for (const id of ids) text += await decoder.push([id]);
      expect(text + (await decoder.flush())).to.equal(decoded);
    }
  });

  it('is passed over where there is a tokenizer.json', async () => {
    await cp('models/tiny-books-mamba2/tokenizer.json', path.join(dir, 'tokenizer.json'));
    expect((await load('mistral')).vocab_size).to.equal(4096);
  });

  it('refuses a file that is none, by name, however it is broken', async () => {
    const bytes = await readFile(`${FIXTURES}/mistral.model`);
    const file = path.join(dir, 'tokenizer.model');
    const random = lcg(17);
    const broken = [new Uint8Array(0), Buffer.from('{}'), Buffer.from('version https://git-lfs.github.com/spec/v1\n')];
    for (let i = 0; i < 20; i++) broken.push(bytes.subarray(0, Math.floor(random() * bytes.length)));
    let refused = 0;
    for (const content of broken) {
      await writeFile(file, content);
      const outcome = await Tokenizer.from_pretrained(dir).then(
        () => null,
        (error: Error) => error,
      );
      // A file cut between two fields is whole as far as its form goes.
      if (outcome === null) continue;
      refused++;
      expect(outcome).to.be.instanceOf(TokenizerError);
      expect(outcome.message).to.include('tokenizer.model');
    }
    expect(refused).to.be.above(15);
  });
});
