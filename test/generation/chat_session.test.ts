import { expect } from 'chai';
import { TokenizerError } from '../../src/base/errors.js';
import { ChatSession, generate, GenerationConfig, type ChatSnapshot } from '../../src/generation/index.js';
import { Tokenizer } from '../../src/tokenizers/index.js';
import { rejection } from '../support/errors.js';
import { hashedLogits, ToyEngine } from '../support/toy_engine.js';

const BODY = '{% for m in messages %}[{{ m.role }}] CONTENT{{ eos_token }}\n{% endfor %}';
const template = (content: string): string =>
  `${BODY.replace('CONTENT', content)}{% if add_generation_prompt %}[assistant] {% endif %}`;
/** Writes what the model wrote; trims it; writes earlier turns in capitals once there are more. */
const PLAIN = template('{{ m.content }}');
const TRIMMED = template('{{ m.content | trim }}!');
const REWRITTEN = template(
  '{% if loop.index + 2 < messages | length %}{{ m.content | upper }}{% else %}{{ m.content }}{% endif %}',
);

/** A snapshot holds nothing but data: numbers in arrays come and go as JSON. */
const typed = (_: string, value: unknown): unknown => (value instanceof Float32Array ? { floats: [...value] } : value);
const retyped = (_: string, value: unknown): unknown => {
  const floats = (value as { floats?: number[] } | null)?.floats;
  return floats ? Float32Array.from(floats) : value;
};

describe('ChatSession', () => {
  let tokenizer: Tokenizer;
  const config = new GenerationConfig({ max_new_tokens: 5, eos_token_id: 0 });
  const questions = ['Who is she?', 'Where did she go, and why?', 'When?'];
  before(async () => {
    tokenizer = await Tokenizer.from_pretrained('models/tiny-books-mamba2');
  });

  /** An engine that ends its third token with eos, and a record of what it was fed. */
  function make(eosAt = 3): { engine: ToyEngine; fed: number[] } {
    const hashed = hashedLogits(4096);
    let since = 0;
    const engine = new ToyEngine(4096, (ids) => {
      const logits = hashed(ids);
      logits[0] = since >= eosAt - 1 ? 99 : -99;
      return logits;
    });
    const fed: number[] = [];
    const prefill = engine.prefill.bind(engine);
    engine.prefill = (state, rows, options) => {
      fed.push(rows[0]!.length);
      since = 0;
      return prefill(state, rows, options);
    };
    const step = engine.step.bind(engine);
    engine.step = (state, tokens) => {
      since++;
      return step(state, tokens);
    };
    return { engine, fed };
  }

  it('feeds only the new text of each turn, and reads what the template says', async () => {
    const { engine, fed } = make();
    const session = new ChatSession(engine, tokenizer, config, { chat_template: PLAIN });
    for (const [i, question] of questions.entries()) {
      const turn = await session.send(question);
      expect(turn.new_tokens.length).to.equal(3);
      expect(turn.finish_reason).to.equal('eos');
      const added = `${i === 0 ? '' : '\n'}[user] ${question}<|endoftext|>\n[assistant] `;
      expect(fed[i]).to.equal((await tokenizer.encode(added)).length);
      expect(turn.fed).to.equal(fed[i]);
      expect(session.messages[2 * i + 1]).to.deep.equal({ role: 'assistant', content: turn.text });
    }
    expect(fed.length).to.equal(3);
    session.dispose();
    expect(engine.live).to.equal(0);
  });

  it('answers as a fresh reading of the whole conversation would', async () => {
    const engine = new ToyEngine(4096, hashedLogits(4096));
    const session = new ChatSession(engine, tokenizer, config, { chat_template: PLAIN });
    for (const question of questions) {
      const turn = await session.send(question);
      const text = await tokenizer.apply_chat_template(session.messages.slice(0, -1), {
        chat_template: PLAIN,
        add_generation_prompt: true,
        tokenize: false,
      });
      expect(text.endsWith('[assistant] ')).to.equal(true);
      // Random tokens are rarely cut as a tokenizer would cut them: compare by what was fed.
      const state = (session as unknown as { start: { ids: number[]; text: string } }).start;
      expect(state.text).to.equal(text);
      const { new_tokens } = await generate(engine, config, { input_ids: [state.ids] });
      expect(turn.new_tokens).to.deep.equal(new_tokens[0]);
    }
    session.dispose();
    expect(engine.live).to.equal(0);
  });

  it('feeds a turn again where the template writes answers otherwise, and all where it rewrites the past', async () => {
    for (const [chat_template, again] of [
      [TRIMMED, 1],
      [REWRITTEN, Infinity],
    ] as const) {
      const { engine, fed } = make();
      const session = new ChatSession(engine, tokenizer, config, { chat_template });
      for (const question of questions) await session.send(question);
      const whole = await tokenizer.apply_chat_template(session.messages.slice(0, -1), {
        chat_template,
        add_generation_prompt: true,
      });
      if (again === 1) expect(fed[2]).to.be.below(whole.length / 1.5);
      else expect(fed[2]).to.equal(whole.length);
      const { ids } = (session as unknown as { start: { ids: number[] } }).start;
      expect(await tokenizer.decode(ids)).to.equal(await tokenizer.decode(whole));
      session.dispose();
      expect(engine.live).to.equal(0);
    }
  });

  it('goes on from a snapshot in another session, reading the new text only', async () => {
    for (const chat_template of [PLAIN, TRIMMED]) {
      const { engine, fed } = make();
      const session = new ChatSession(engine, tokenizer, config, { chat_template });
      for (const question of questions.slice(0, 2)) await session.send(question);
      const snapshot = JSON.parse(JSON.stringify(await session.snapshot(), typed), retyped) as ChatSnapshot;
      const turn = await session.send(questions[2]!);
      const next = new ChatSession(engine, tokenizer, config, { chat_template });
      await next.send('Something else?');
      await next.restore(snapshot);
      expect(next.messages).to.deep.equal(session.messages.slice(0, 4));
      const again = await next.send(questions[2]!);
      expect(again).to.deep.equal(turn);
      expect(fed.at(-1)).to.equal(turn.fed);
      const whole = await tokenizer.apply_chat_template(session.messages.slice(0, -1), { chat_template });
      expect(turn.fed).to.be.below(whole.length / 1.5);
      session.dispose();
      next.dispose();
      expect(engine.live).to.equal(0);
    }
  });

  it('keeps what there is of an answer that was stopped, and goes on from it', async () => {
    const { engine, fed } = make(100);
    const session = new ChatSession(engine, tokenizer, config, { chat_template: PLAIN });
    const controller = new AbortController();
    let count = 0;
    const streamer = { put: () => void (++count === 4 && controller.abort()), end: () => {} };
    const turn = await session.send('Who?', { streamer, signal: controller.signal, max_new_tokens: 50 });
    expect(turn.finish_reason).to.equal('abort');
    expect(turn.new_tokens.length).to.equal(3);
    await session.send('And?');
    expect(fed[1]).to.equal((await tokenizer.encode('<|endoftext|>\n[user] And?<|endoftext|>\n[assistant] ')).length);
    session.dispose();
    expect(engine.live).to.equal(0);
  });

  it('is as it was after a turn that failed', async () => {
    const { engine } = make();
    const session = new ChatSession(engine, tokenizer, config, { chat_template: PLAIN });
    await session.send('Who?');
    const kept = session.messages;
    const signal = AbortSignal.abort(new Error('no'));
    expect((await rejection(session.send('And?', { signal }))).message).to.equal('no');
    expect((await rejection(session.send('And?', { top_p: 7 }))).message).to.include('top_p');
    expect(session.messages).to.deep.equal(kept);
    expect((await session.send('And?')).new_tokens.length).to.equal(3);
    session.dispose();
    expect(engine.live).to.equal(0);
  });

  it('begins anew, and takes over a conversation', async () => {
    const { engine, fed } = make();
    const session = new ChatSession(engine, tokenizer, config, { chat_template: PLAIN });
    session.reset('Be brief.');
    await session.send('Who?');
    const messages = session.messages;
    session.load(messages);
    await session.send('And?');
    const rest = [...messages, { role: 'user', content: 'And?' }];
    const text = { chat_template: PLAIN, add_generation_prompt: true };
    expect(fed[1]).to.equal((await tokenizer.apply_chat_template(rest, text)).length);
    session.reset();
    expect(session.messages).to.deep.equal([]);
    expect(engine.live).to.equal(0);
  });

  it('says so when there is no chat template', async () => {
    const { engine } = make();
    const session = new ChatSession(engine, tokenizer, config);
    expect(await rejection(session.send('Who?'))).to.be.instanceOf(TokenizerError);
    expect(engine.live).to.equal(0);
  });
});
