import { expect } from 'chai';
import { IncrementalDecoder, Tokenizer } from '../../src/tokenizers/index.js';
import type { TokenizerBackendName } from '../../src/tokenizers/index.js';
import { byteFallbackTokenizer } from '../support/byte_fallback_tokenizer.js';
import { loadGolden } from '../support/goldens.js';
import { lcg } from '../support/random.js';

const MODEL = 'models/tiny-books-mamba2';

/** Pushes ids in the given chunks; returns the pieces. */
async function pieces(tokenizer: Tokenizer, chunks: number[][], options = {}): Promise<string[]> {
  const decoder = new IncrementalDecoder(tokenizer, options);
  const out: string[] = [];
  for (const chunk of chunks) out.push(await decoder.push(chunk));
  return [...out, await decoder.flush()];
}

function split(ids: number[], random: () => number): number[][] {
  const chunks: number[][] = [];
  for (let i = 0; i < ids.length;) {
    const size = 1 + Math.floor(random() * 4);
    chunks.push(ids.slice(i, (i += size)));
  }
  return chunks;
}

for (const backend of ['native', 'javascript'] as TokenizerBackendName[]) {
  describe(`IncrementalDecoder (${backend} backend)`, () => {
    let tokenizer: Tokenizer;
    let texts: string[];

    before(async () => {
      tokenizer = await Tokenizer.from_pretrained(MODEL, { backend });
      texts = (loadGolden('tokenizer').json.cases as { text: string }[]).map((c) => c.text);
    });

    it('gives the whole text in pieces, however the ids are cut, and never half a character', async () => {
      const random = lcg(7);
      for (const text of texts) {
        const ids = await tokenizer.encode(text);
        for (const chunks of [ids.map((id) => [id]), split(ids, random)]) {
          const got = await pieces(tokenizer, chunks);
          expect(got.join('')).to.equal(text);
          if (!text.includes('\uFFFD')) expect(got.some((p) => p.includes('\uFFFD'))).to.equal(false);
        }
      }
    });

    it('equals the whole decoding for random ids, whose bytes are mostly no UTF-8', async () => {
      const random = lcg(11);
      for (let run = 0; run < 20; run++) {
        const ids = Array.from({ length: 40 }, () => Math.floor(random() * 4096));
        for (const options of [{}, { skip_special_tokens: true }]) {
          const got = await pieces(tokenizer, split(ids, random), options);
          expect(got.join('')).to.equal(await tokenizer.decode(ids, options));
        }
      }
    });

    it('lets a long run of bytes that can be no character go', async () => {
      const byte = (await tokenizer.encode('😀'))[1]!;
      const got = await pieces(
        tokenizer,
        Array.from({ length: 40 }, () => [byte]),
      );
      expect(got.join('')).to.equal('\uFFFD'.repeat(40));
      expect(got.filter((p) => p !== '').length).to.be.above(3);
    });

    it('keeps its window short over a long stream', async () => {
      let longest = 0;
      const spy = {
        decode: (ids: ArrayLike<number>) => {
          longest = Math.max(longest, ids.length);
          return tokenizer.decode(ids, { skip_special_tokens: true });
        },
      };
      const decoder = new IncrementalDecoder(spy);
      const ids = await tokenizer.encode('It is a truth, été 👩‍👧. '.repeat(50));
      for (const id of ids) {
        await decoder.push([id]);
        await decoder.push([0]);
      }
      // Two characters of four bytes, a special token after each byte: 16 ids, of 3000 and more.
      expect(longest).to.be.below(17);
    });

    it('takes a whole book at once', async () => {
      const ids = new Array<number>(300_000).fill((await tokenizer.encode('a'))[0]!);
      expect(await pieces(tokenizer, [ids])).to.deep.equal(['a'.repeat(300_000), '']);
    });

    it('keeps the leading space of words and whole characters with a byte-fallback tokenizer', async () => {
      const fallback = await Tokenizer.from_files(byteFallbackTokenizer(), { backend });
      const text = 'ab 中文 ba 😀😀 a';
      const ids = await fallback.encode(text);
      expect(await fallback.decode(ids)).to.equal(text);
      const got = await pieces(
        fallback,
        ids.map((id) => [id]),
      );
      expect(got.join('')).to.equal(text);
      expect(got.some((p) => p.includes('\uFFFD'))).to.equal(false);
    });
  });
}
