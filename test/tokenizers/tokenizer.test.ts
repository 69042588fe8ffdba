import { mkdtemp, rm, writeFile, cp } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { TokenizerError } from '../../src/base/errors.js';
import { Tokenizer, readTokenizerFiles } from '../../src/tokenizers/index.js';
import type { TokenizerBackendName } from '../../src/tokenizers/index.js';
import { rejection } from '../support/errors.js';
import { loadGolden } from '../support/goldens.js';
import { lcg } from '../support/random.js';

const MODEL = 'models/tiny-books-mamba2';

interface Golden {
  cases: { text: string; ids: number[]; decoded: string; decoded_skip_special_tokens: string }[];
  prefix_decodes: { text: string; ids: number[]; decoded: string[] };
  batch: { texts: string[]; input_ids: number[][]; attention_mask: number[][] };
  special: { bos: number; eos: number; pad: number; vocab_size: number };
}

for (const backend of ['native', 'javascript'] as TokenizerBackendName[]) {
  describe(`Tokenizer (${backend} backend)`, () => {
    let golden: Golden;
    let tokenizer: Tokenizer;

    before(async () => {
      golden = loadGolden('tokenizer').json as unknown as Golden;
      tokenizer = await Tokenizer.from_pretrained(MODEL, { backend });
    });

    it('is the backend that was asked for', () => {
      expect(tokenizer.backend_name).to.equal(backend);
    });

    it('gives the ids of the golden texts', async () => {
      expect(golden.cases).to.not.deep.equal([]);
      for (const { text, ids } of golden.cases) {
        expect(await tokenizer.encode(text), JSON.stringify(text)).to.deep.equal(ids);
      }
    });

    it('gives the golden texts back, with and without special tokens', async () => {
      for (const { ids, decoded, decoded_skip_special_tokens } of golden.cases) {
        expect(await tokenizer.decode(ids)).to.equal(decoded);
        expect(await tokenizer.decode(ids, { skip_special_tokens: true })).to.equal(decoded_skip_special_tokens);
      }
    });

    it('decodes every prefix as the golden does', async () => {
      const { ids, decoded } = golden.prefix_decodes;
      const prefixes = decoded.map((_, k) => ids.slice(0, k));
      expect(await tokenizer.batch_decode(prefixes)).to.deep.equal(decoded);
    });

    it('pads a batch on the left as the golden does', async () => {
      const { texts, input_ids, attention_mask } = golden.batch;
      expect(await tokenizer.batch_encode(texts)).to.deep.equal({ input_ids, attention_mask });
    });

    it('pads on the right, to a length, to a multiple, or not at all', async () => {
      const texts = ['Hello, world!', 'Hello'] as const;
      const [long, short] = await Promise.all([tokenizer.encode(texts[0]), tokenizer.encode(texts[1])]);
      const gap = long.length - short.length;
      const right = await tokenizer.batch_encode(texts, { padding_side: 'right' });
      expect(right.input_ids[1]).to.deep.equal([...short, ...new Array<number>(gap).fill(1)]);
      expect(right.attention_mask[1]).to.deep.equal([...short.map(() => 1), ...new Array<number>(gap).fill(0)]);
      const fixed = await tokenizer.batch_encode(texts, { padding: 'max_length', max_length: 9 });
      expect(fixed.input_ids.map((r) => r.length)).to.deep.equal([9, 9]);
      const multiple = await tokenizer.batch_encode(texts, { pad_to_multiple_of: 4 });
      expect(multiple.input_ids.map((r) => r.length)).to.deep.equal([8, 8]);
      const ragged = await tokenizer.batch_encode(texts, { padding: false });
      expect(ragged.input_ids).to.deep.equal([long, short]);
      expect(ragged.attention_mask).to.deep.equal([long.map(() => 1), short.map(() => 1)]);
    });

    it('cuts to max_length on either side', async () => {
      const ids = await tokenizer.encode('Hello, world!');
      expect(await tokenizer.encode('Hello, world!', { truncation: true, max_length: 3 })).to.deep.equal(
        ids.slice(0, 3),
      );
      const left = { truncation: true, max_length: 3, truncation_side: 'left' } as const;
      expect(await tokenizer.encode('Hello, world!', left)).to.deep.equal(ids.slice(-3));
    });

    it('cuts the text and keeps the special tokens around it', async () => {
      const files = await readTokenizerFiles(MODEL);
      const token = (id: string): unknown => ({ SpecialToken: { id, type_id: 0 } });
      const post_processor = {
        type: 'TemplateProcessing',
        single: [token('<|endoftext|>'), { Sequence: { id: 'A', type_id: 0 } }, token('<|padding|>')],
        pair: [
          token('<|endoftext|>'),
          { Sequence: { id: 'A', type_id: 0 } },
          token('<|padding|>'),
          { Sequence: { id: 'B', type_id: 1 } },
        ],
        special_tokens: Object.fromEntries(
          ['<|endoftext|>', '<|padding|>'].map((id, n) => [id, { id, ids: [n], tokens: [id] }]),
        ),
      };
      const around = await Tokenizer.from_files(
        { ...files, tokenizer: { ...files.tokenizer, post_processor } },
        { backend },
      );
      // transformers 5.24 with tokenizers' TemplateProcessing('<|endoftext|> $A <|padding|>')
      const text = 'It was a dark and stormy night, and Emma was not there';
      const all = [0, 867, 330, 260, 1247, 283, 3224, 90, 857, 13, 283, 1106, 330, 335, 488, 1];
      const cases: ['left' | 'right', number, number[], number[]][] = [
        ['right', 2, [0, 1], [867, 330]],
        ['right', 3, [0, 867, 1], [867, 330, 260]],
        ['right', 5, [0, 867, 330, 260, 1], [867, 330, 260, 1247, 283]],
        ['right', 100, all, all.slice(1, -1)],
        ['left', 2, [0, 1], [335, 488]],
        ['left', 3, [0, 488, 1], [330, 335, 488]],
        ['left', 5, [0, 330, 335, 488, 1], [283, 1106, 330, 335, 488]],
        ['left', 100, all, all.slice(1, -1)],
      ];
      for (const [truncation_side, max_length, want, bare] of cases) {
        const options = { truncation: true, max_length, truncation_side };
        expect(await around.encode(text, options), `${truncation_side} ${max_length}`).to.deep.equal(want);
        expect(await around.encode(text, { ...options, add_special_tokens: false })).to.deep.equal(bare);
      }
      // Text that is itself made of the special tokens.
      const same = await around.encode('<|endoftext|>'.repeat(4), { truncation: true, max_length: 4 });
      expect(same).to.deep.equal([0, 0, 0, 1]);
      const none = await rejection(around.encode(text, { truncation: true, max_length: 1 }));
      expect(none).to.be.instanceOf(TokenizerError);
      expect(none.message).to.include('max_length is 1');
    });

    it('knows its special tokens and its size', () => {
      const { bos, eos, pad, vocab_size } = golden.special;
      expect(tokenizer.bos_token_id).to.equal(bos);
      expect(tokenizer.eos_token_id).to.equal(eos);
      expect(tokenizer.pad_token_id).to.equal(pad);
      expect(tokenizer.vocab_size).to.equal(vocab_size);
      expect(tokenizer.token_to_id('<|padding|>')).to.equal(pad);
      expect(tokenizer.id_to_token(pad)).to.equal('<|padding|>');
      expect(tokenizer.token_to_id('no such token')).to.equal(null);
    });

    it('gives nothing for ids it does not have, as padding rows of a model are', async () => {
      const id = (await tokenizer.encode('H'))[0]!;
      expect(await tokenizer.decode([4096, id, 5000])).to.equal('H');
    });

    it('refuses what is no text and no id', async () => {
      for (const [call, part] of [
        [() => tokenizer.encode(7 as never), 'got 7'],
        [() => tokenizer.encode('a\ud800b'), 'position 1'],
        [() => tokenizer.batch_encode('text' as never), 'expected a list'],
        [() => tokenizer.decode([3, -1]), '-1'],
        [() => tokenizer.decode([1.5]), '1.5'],
        [() => tokenizer.encode('x', { truncation: true }), 'max_length'],
        [() => Tokenizer.from_pretrained(MODEL, { backend, padding_side: 'up' as never }), 'padding_side'],
      ] as [() => Promise<unknown>, string][]) {
        const error = await rejection(call());
        expect(error).to.be.instanceOf(TokenizerError);
        expect(error.message).to.include(part);
      }
    });

    it('cleans spaces up when asked, and not for a BPE tokenizer by its config alone', async () => {
      const ids = await tokenizer.encode("I do n't know , do you ?");
      expect(await tokenizer.decode(ids, { clean_up_tokenization_spaces: true })).to.equal("I don't know, do you?");
      const files = await readTokenizerFiles(MODEL);
      const config = { ...files.config, clean_up_tokenization_spaces: true };
      const other = await Tokenizer.from_files({ ...files, config }, { backend });
      expect(await other.decode(ids)).to.equal("I do n't know , do you ?");
    });
  });
}

describe('long runs in JavaScript', () => {
  it('have the ids of the native implementation, and take seconds at most', async function () {
    this.timeout(60_000);
    const [native, javascript] = await Promise.all(
      (['native', 'javascript'] as const).map((backend) => Tokenizer.from_pretrained(MODEL, { backend })),
    );
    const random = lcg(5);
    const runs = [' ', 'a', '\n', 'the', '  \t', '!?'].map((part) => part.repeat(3000));
    for (let i = 0; i < 40; i++) {
      const letters = 'etaoins hrdlu'.slice(0, 2 + Math.floor(random() * 11));
      const length = 257 + Math.floor(random() * 2000);
      const pick = (): string => letters[Math.floor(random() * letters.length)]!;
      runs.push(
        Array.from({ length }, pick)
          .join('')
          .replaceAll(' ', i % 2 ? ' ' : ''),
      );
    }
    for (const text of runs) expect(await javascript!.encode(text)).to.deep.equal(await native!.encode(text));
    const start = performance.now();
    expect((await javascript!.encode(' '.repeat(300_000))).length).to.equal(37_500);
    expect(performance.now() - start).to.be.lessThan(5000);
  });
});

describe('Tokenizer folders', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(path.join(os.tmpdir(), 'tokenizer-'));
  });
  afterEach(() => rm(dir, { recursive: true }));

  it('names the folder that has no tokenizer.json', async () => {
    const error = await rejection(Tokenizer.from_pretrained(dir));
    expect(error).to.be.instanceOf(TokenizerError);
    expect(error.message).to.include(dir).and.to.include('tokenizer.json');
  });

  for (const [what, content] of [
    ['cut off', '{"version": "1.0", "model": {'],
    ['a list', '[]'],
    ['without a model', '{"version": "1.0"}'],
    ['with an unknown model', '{"version": "1.0", "model": {"type": "Oracle", "vocab": {}}}'],
  ] as const) {
    for (const backend of ['native', 'javascript'] as TokenizerBackendName[]) {
      it(`refuses a tokenizer.json that is ${what} (${backend})`, async () => {
        await writeFile(path.join(dir, 'tokenizer.json'), content);
        const error = await rejection(Tokenizer.from_pretrained(dir, { backend }));
        expect(error).to.be.instanceOf(TokenizerError);
        expect(error.message).to.include('tokenizer.json');
      });
    }
  }

  it('reads special tokens as texts, as objects, and from special_tokens_map.json', async () => {
    await cp(path.join(MODEL, 'tokenizer.json'), path.join(dir, 'tokenizer.json'));
    const config = { eos_token: { content: '<|padding|>', lstrip: false }, padding_side: 'right' };
    await writeFile(path.join(dir, 'tokenizer_config.json'), JSON.stringify(config));
    const map = { bos_token: '<|endoftext|>', eos_token: '<|endoftext|>', unk_token: '<absent>' };
    await writeFile(path.join(dir, 'special_tokens_map.json'), JSON.stringify(map));
    const tokenizer = await Tokenizer.from_pretrained(dir);
    expect(tokenizer.eos_token_id).to.equal(1);
    expect(tokenizer.bos_token_id).to.equal(0);
    expect(tokenizer.unk_token_id).to.equal(4096); // added behind the vocabulary, as in transformers
    expect(tokenizer.pad_token_id).to.equal(null);
    expect(tokenizer.padding_side).to.equal('right');
    // eos stands in for the missing pad token.
    const { input_ids } = await tokenizer.batch_encode(['Hello, world!', 'Hello']);
    expect(input_ids[1]![input_ids[1]!.length - 1]).to.equal(1);
  });

  it('refuses to split special tokens, which it cannot', async () => {
    await cp(path.join(MODEL, 'tokenizer.json'), path.join(dir, 'tokenizer.json'));
    await writeFile(path.join(dir, 'tokenizer_config.json'), JSON.stringify({ split_special_tokens: true }));
    const error = await rejection(Tokenizer.from_pretrained(dir));
    expect(error).to.be.instanceOf(TokenizerError);
    expect(error.message).to.include('split_special_tokens');
  });

  it('adds tokens that only tokenizer_config.json knows', async () => {
    await cp(path.join(MODEL, 'tokenizer.json'), path.join(dir, 'tokenizer.json'));
    const config = { added_tokens_decoder: { 4096: { content: '<|user|>', special: true } } };
    await writeFile(path.join(dir, 'tokenizer_config.json'), JSON.stringify(config));
    for (const backend of ['native', 'javascript'] as TokenizerBackendName[]) {
      const tokenizer = await Tokenizer.from_pretrained(dir, { backend });
      expect(await tokenizer.encode('<|user|>')).to.deep.equal([4096]);
      expect(tokenizer.vocab_size).to.equal(4097);
      expect(await tokenizer.decode([4096], { skip_special_tokens: true })).to.equal('');
    }
  });
});
