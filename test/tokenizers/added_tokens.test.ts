import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import type { TokenizerJson } from '../../src/tokenizers/backend.js';
import { withConfiguredTokens } from '../../src/tokenizers/added_tokens.js';
import { Tokenizer } from '../../src/tokenizers/index.js';

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
    expect(fixture.cases.length).to.be.greaterThan(60);
    for (const { name, config, error, ids, plain, decoded, special, size } of fixture.cases) {
      expect(error, name).to.equal(undefined);
      const tokenizer = await Tokenizer.from_files(
        {
          source: name,
          tokenizer: withConfiguredTokens(json, config, {}),
          config,
          specialTokensMap: {},
          chatTemplates: {},
        },
        { backend },
      );
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
