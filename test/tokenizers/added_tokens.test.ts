import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import { TokenizerError } from '../../src/base/errors.js';
import type { TokenizerJson } from '../../src/tokenizers/backend.js';
import { withConfiguredTokens } from '../../src/tokenizers/added_tokens.js';
import { Tokenizer } from '../../src/tokenizers/index.js';
import { rejection } from '../support/errors.js';

interface Case {
  name: string;
  config: Record<string, unknown>;
  error?: string;
  ids: number[][];
  plain: number[][];
  decoded: string[];
  special: Record<'bos' | 'eos' | 'pad' | 'unk' | 'mask', number | null>;
  size: number;
}

const SPECIAL = ['bos', 'eos', 'pad', 'unk', 'mask'] as const;

for (const backend of ['native', 'javascript'] as const) {
  it(`tokens that only the configuration knows have transformers' ids (${backend})`, async () => {
    const json = JSON.parse(await readFile('models/tiny-books-mamba2/tokenizer.json', 'utf8')) as TokenizerJson;
    const fixture = JSON.parse(await readFile('test/fixtures/special_tokens.json', 'utf8')) as {
      texts: string[];
      cases: Case[];
    };
    expect(fixture.cases.length).to.be.greaterThan(120);
    for (const { name, config, error, ids, plain, decoded, special, size } of fixture.cases) {
      expect(error, name).to.equal(undefined);
      const parts = { source: name, config, special_tokens_map: {}, chat_templates: {} };
      const files = { ...parts, tokenizer: withConfiguredTokens(json, config, {}) };
      if (backend === 'javascript' && files.tokenizer.added_tokens!.some((token) => token.single_word === true)) {
        // it does not look for the borders of words, and says so
        expect((await rejection(Tokenizer.from_files(files, { backend }))).message, name).to.include('single_word');
        continue;
      }
      const tokenizer = await Tokenizer.from_files(files, { backend });
      for (const [i, text] of fixture.texts.entries()) {
        const label = `${name}: ${JSON.stringify(text)}`;
        expect(await tokenizer.encode(text), label).to.deep.equal(ids[i]);
        expect(await tokenizer.encode(text, { add_special_tokens: false }), label).to.deep.equal(plain[i]);
        expect(await tokenizer.decode(ids[i]!, { skip_special_tokens: true }), label).to.equal(decoded[i]);
      }
      for (const key of SPECIAL) {
        const wanted = special[key];
        expect(tokenizer.special_tokens[`${key}_token`]?.id ?? null, `${name}: ${key}`).to.equal(wanted);
      }
      expect(tokenizer.vocab_size, name).to.equal(size);
    }
  });
}

it('a vocabulary or a list of added tokens with something else in it is told when the file is checked', async () => {
  const json = JSON.parse(await readFile('models/tiny-books-mamba2/tokenizer.json', 'utf8')) as TokenizerJson;
  const config = { bos_token: '<new>', extra_special_tokens: ['<other>'] };
  for (const parts of [
    { added_tokens: [null, 7, { content: '<x>', id: 'y' }] },
    { model: { type: 'Unigram', vocab: [null, 3, ['a', 0]], unk_id: 0 } },
  ]) {
    const tokenizer = withConfiguredTokens({ ...json, ...parts } as unknown as TokenizerJson, config, {});
    const files = { source: 'x', config, special_tokens_map: {}, chat_templates: {}, tokenizer };
    expect(await rejection(Tokenizer.from_files(files))).to.be.instanceOf(TokenizerError);
  }
  const many = Array.from({ length: 200_000 }, (_, i) => ({ id: 4096 + i, content: `<${i}>` }));
  const grown = withConfiguredTokens({ ...json, added_tokens: many }, { bos_token: '<new>' }, {});
  expect(grown.added_tokens!.at(-1)!.id).to.equal(4096 + 200_000);
});
