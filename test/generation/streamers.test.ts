import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import {
  generate,
  GenerationConfig,
  TextIteratorStreamer,
  TextStreamer,
  type GenerateOutput,
} from '../../src/generation/index.js';
import { GenerationError } from '../../src/base/errors.js';
import { Tokenizer } from '../../src/tokenizers/index.js';
import { rejection } from '../support/errors.js';
import { scriptedLogits, ToyEngine } from '../support/toy_engine.js';

/** Pieces that transformers' TextStreamer gives out, per test/fixtures/text_streamer.json. */
interface Case {
  text: string;
  prompt: number[];
  ids: number[];
  skip_prompt: boolean;
  pieces: string[];
}

describe('TextStreamer', () => {
  it('refuse options that they do not have, with the nearest name or the name here', () => {
    const tokenizer = { decode: (): Promise<string> => Promise.resolve('') };
    class Own extends TextIteratorStreamer {}
    const bad: [unknown, RegExp][] = [
      [{ skip_promt: true }, /no option skip_promt\. Did you mean skip_prompt/],
      [{ on_finalized_text: () => undefined }, /It is called callback_function here/],
      [{ skip_prompt: 'yes' }, /skip_prompt .*expected true or false/],
      [{ timeout: 3 }, /timeout: 3, which is not supported/],
    ];
    for (const [options, message] of bad)
      for (const Kind of [TextStreamer, TextIteratorStreamer, Own])
        expect(() => new Kind(tokenizer as never, options as never)).to.throw(message);
    expect(() => new TextStreamer(tokenizer as never, { high_water_mark: 2 } as never)).to.throw(
      /no option high_water_mark/,
    );
    expect(() => new Own(tokenizer as never, { high_water_mark: 0 })).to.throw(/high_water_mark is 0/);
    expect(new Own(tokenizer as never, { high_water_mark: 2 })).to.be.instanceOf(TextStreamer);
  });

  let tokenizer: Tokenizer;
  let cases: Case[];
  before(async () => {
    tokenizer = await Tokenizer.from_pretrained('models/tiny-books-mamba2');
    ({ cases } = JSON.parse(await readFile('test/fixtures/text_streamer.json', 'utf8')) as { cases: Case[] });
  });

  /** Streams ids as generate() does, `size` at a time; returns the pieces. */
  async function stream({ prompt, ids, skip_prompt }: Case, size: number): Promise<string[]> {
    const out: string[] = [];
    const streamer = new TextStreamer(tokenizer, {
      skip_prompt,
      skip_special_tokens: true,
      callback_function: (text) => void out.push(text),
    });
    await streamer.put([prompt]);
    for (let i = 0; i < ids.length; i += size) await streamer.put([ids.slice(i, i + size)]);
    await streamer.end();
    return out;
  }

  it('gives out the pieces that transformers gives out', async () => {
    expect(cases.length).to.be.at.least(10);
    for (const c of cases) expect(await stream(c, 1), c.text).to.deep.equal(c.pieces);
  });

  it('gives out the same pieces when several tokens come at once', async () => {
    for (const c of cases) expect(await stream(c, 3), c.text).to.deep.equal(c.pieces);
  });

  it('passes ids on, and refuses a batch', async () => {
    const got: number[] = [];
    const streamer = new TextStreamer(tokenizer, {
      callback_function: () => {},
      token_callback_function: (ids) => void got.push(...ids),
    });
    await streamer.put([[41, 451]]);
    await streamer.put([[80]]);
    expect(got).to.deep.equal([41, 451, 80]);
    expect(await rejection(streamer.put([[1], [2]]))).to.be.instanceOf(GenerationError);
  });

  it('leaves the prompt out again after a generation that failed or was aborted in its prompt', async () => {
    let out = '';
    const streamer = new TextStreamer(tokenizer, {
      skip_prompt: true,
      callback_function: (text) => void (out += text),
    });
    const prompt = await tokenizer.encode('Who is she?');
    const ids = await tokenizer.encode(' A lady of 中');
    const write = (signal?: AbortSignal, fails?: boolean): Promise<unknown> => {
      const process = (row: readonly number[]): void => {
        if (fails && row.length === prompt.length + ids.length - 1) throw new Error('in the middle');
      };
      return generate(new ToyEngine(4096, scriptedLogits(4096, prompt.length, ids)), new GenerationConfig(), {
        ...{ input_ids: [prompt], max_new_tokens: ids.length, streamer, signal },
        logits_processor: [{ process }],
      });
    };
    const late = new AbortController();
    const put = streamer.put.bind(streamer);
    streamer.put = async (rows) => {
      await put(rows);
      late.abort(new Error('not now'));
    };
    expect((await rejection(write(late.signal))).message).to.equal('not now');
    streamer.put = put;
    await write();
    expect(out).to.equal(' A lady of 中');
    // Of a generation that fails while it writes, neither half a word nor half a character is left for the next.
    expect((await rejection(write(undefined, true))).message).to.equal('in the middle');
    out = '';
    await write();
    expect(out).to.equal(' A lady of 中');
  });

  it('writes to standard output by default', async () => {
    const write = process.stdout.write;
    let out = '';
    process.stdout.write = ((text: string, done: () => void) => {
      out += text;
      done();
      return true;
    }) as never;
    try {
      const streamer = new TextStreamer(tokenizer);
      await streamer.put([await tokenizer.encode('Hello, world!')]);
      await streamer.end();
    } finally {
      process.stdout.write = write;
    }
    expect(out).to.equal('Hello, world!\n');
  });
});

describe('TextIteratorStreamer', () => {
  let tokenizer: Tokenizer;
  let ids: number[];
  const text = 'It is a truth universally acknowledged, that a single man 中文 in 😀 possession\nof a fortune '.repeat(
    9,
  );
  before(async () => {
    tokenizer = await Tokenizer.from_pretrained('models/tiny-books-mamba2');
    ids = await tokenizer.encode(text);
  });
  const start = (streamer: TextIteratorStreamer, count = ids.length): Promise<unknown> =>
    generate(new ToyEngine(4096, scriptedLogits(4096, 1, ids)), new GenerationConfig(), {
      input_ids: [[5]],
      max_new_tokens: count,
      streamer,
    });

  it('gives the text in pieces', async () => {
    const streamer = new TextIteratorStreamer(tokenizer, { skip_prompt: true });
    const done = start(streamer);
    const pieces: string[] = [];
    for await (const piece of streamer) pieces.push(piece);
    await done;
    expect(pieces.join('')).to.equal(text);
    expect(pieces.length).to.be.above(100);
    expect(pieces.every((p) => !p.includes('\uFFFD'))).to.equal(true);
  });

  it('makes generation wait for a slow reader', async () => {
    const engine = new ToyEngine(4096, scriptedLogits(4096, 1, ids));
    const streamer = new TextIteratorStreamer(tokenizer, { skip_prompt: true, high_water_mark: 4 });
    const done = generate(engine, new GenerationConfig(), {
      input_ids: [[5]],
      max_new_tokens: ids.length,
      streamer,
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    const early = engine.calls.step;
    expect(early).to.be.within(3, 30);
    let all = '';
    for await (const piece of streamer) all += piece;
    await done;
    expect(all).to.equal(text);
    expect(engine.calls.step).to.be.above(10 * early);
  });

  it('lets generation run to its end when the reader leaves', async () => {
    const streamer = new TextIteratorStreamer(tokenizer, { high_water_mark: 2 });
    const done = start(streamer);
    for await (const piece of streamer) if (piece !== '') break;
    const { new_tokens } = (await done) as GenerateOutput;
    expect(new_tokens).to.deep.equal([ids]);
  });

  const read = async (streamer: TextIteratorStreamer): Promise<string> => {
    let all = '';
    for await (const piece of streamer) all += piece;
    return all;
  };

  it('may be used again: each iteration reads one generation', async () => {
    const streamer = new TextIteratorStreamer(tokenizer, { skip_prompt: true });
    for (let round = 0; round < 2; round++) {
      const done = start(streamer);
      expect(await read(streamer)).to.equal(text);
      await done;
    }
    // one whose reader left, and one that failed
    const left = start(streamer);
    for await (const piece of streamer) if (piece !== '') break;
    await left;
    const failed = start(streamer, 0);
    expect(await rejection(read(streamer))).to.equal(await rejection(failed));
    const done = start(streamer);
    expect(await read(streamer)).to.equal(text);
    await done;
  });

  it('keeps generations apart that are written one after another', async () => {
    const streamer = new TextIteratorStreamer(tokenizer, { skip_prompt: true, high_water_mark: 4 });
    const done = (async () => {
      await start(streamer, 60);
      await start(streamer);
    })();
    const first = await read(streamer);
    expect(first).to.equal(await tokenizer.decode(ids.slice(0, 60)));
    // The second is not read until the end, which does not hold it up.
    await done;
    expect(await read(streamer)).to.equal(text);
  });

  it('fails with what made generate() fail', async () => {
    const streamer = new TextIteratorStreamer(tokenizer);
    const done = start(streamer, 0);
    const reading = read(streamer);
    const error = await rejection(done);
    expect(error.message).to.include('max_new_tokens');
    expect(await rejection(reading)).to.equal(error);
  });
});

describe('stop strings', () => {
  let tokenizer: Tokenizer;
  before(async () => {
    tokenizer = await Tokenizer.from_pretrained('models/tiny-books-mamba2');
  });

  /** Writes `text` after `prompt`; returns the text up to where it stopped. */
  async function write(prompt: string, text: string, stop_strings: string | string[], block?: number): Promise<string> {
    const before = await tokenizer.encode(prompt);
    const ids = await tokenizer.encode(text);
    const engine = new ToyEngine(4096, scriptedLogits(4096, before.length, [...ids, 0]), { block });
    const { new_tokens } = await generate(engine, new GenerationConfig({ eos_token_id: 0 }), {
      input_ids: [before],
      max_new_tokens: 300,
      stop_strings,
      tokenizer,
    });
    expect(engine.live).to.equal(0);
    return tokenizer.decode(new_tokens[0]!, { skip_special_tokens: true });
  }

  const cut = (text: string, stop: string): string => text.slice(0, text.indexOf(stop) + stop.length);

  it('end a row with the token that completes one, wherever tokens are cut, in blocks or not', async () => {
    const text = 'She said: "It is très bien, 中文 😀!" and went.\n\nHe did not go.';
    for (const stop of ['said', 'is tr', 'ès b', '文 😀', '."', '\n\n', 'd not', 'went.\n\nHe did']) {
      for (const block of [undefined, 1, 5, 64]) {
        const got = await write('Once', text, stop, block);
        if (!text.includes(stop)) {
          expect(got).to.equal(text);
          continue;
        }
        expect(got.startsWith(cut(text, stop)), `${stop}: ${got}`).to.equal(true);
        // The last token alone is what goes beyond the stop string.
        const ids = await tokenizer.encode(text);
        const lengths = await Promise.all(
          ids.map(async (_, k) => (await tokenizer.decode(ids.slice(0, k + 1))).length),
        );
        expect(got.length).to.equal(lengths.find((n) => n >= cut(text, stop).length));
      }
    }
  });

  it('stop at the first of several, and not for what the prompt holds already', async () => {
    expect(await write('a. b. c.', ' one, two. three', ['.', 'three'])).to.equal(' one, two.');
  });

  it('may begin in the prompt', async () => {
    const got = await write('one tw', 'o three four', 'two');
    expect(got.startsWith('o')).to.equal(true);
    expect(got).to.not.include('three');
  });
});
