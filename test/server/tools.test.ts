/** Tools: what the grammar lets through is read as calls, in both ways in which models write them. */
import { expect } from 'chai';
import { AutoTokenizer } from '../../src/index.js';
import { CallReader } from '../../src/server/tools/call_reader.js';
import type { ServerContext } from '../../src/server/context.js';
import { formOf } from '../../src/server/tools/form.js';
import { Grammars } from '../../src/server/grammar/grammars.js';
import { TokenTexts } from '../../src/server/token_texts.js';
import { MODEL } from './support.js';

const TAGGED = { begin: '<tool_call>\n', end: '\n</tool_call>', several: true };
const BARE = { begin: '', end: '', several: false };
const parameters = {
  type: 'object',
  properties: { city: { enum: ['Bath', 'Rome'] } },
  required: ['city'],
  additionalProperties: false,
};
const tools = [{ type: 'function' as const, function: { name: 'weather', parameters } }];
const CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bath"}}\n</tool_call>';

describe('tools', function () {
  this.timeout(300_000);
  let texts: TokenTexts;
  let ids: (text: string) => Promise<number[]>;
  let context: (template: string) => ServerContext;
  before(async () => {
    const tokenizer = await AutoTokenizer.from_pretrained(MODEL);
    texts = new TokenTexts(tokenizer);
    ids = (text) => tokenizer.encode(text, { add_special_tokens: false });
    const grammars = new Grammars(texts, tokenizer.vocab_size, new Set([0, 1]), [0]);
    context = (chat_template) => ({ grammars, settings: { tokenizer: { chat_template } } }) as unknown as ServerContext;
  });

  /** How much of a text the grammar of a request lets through; 'whole' where it may end there. */
  async function passes(template: string, request: object, text: string): Promise<string> {
    const form = await formOf(context(template), { messages: [], tools, ...request });
    const row = form.constraint!(0);
    try {
      let passed = '';
      for (const id of await ids(text)) {
        if (!((row.mask()![id >>> 5]! >>> (id & 31)) & 1)) return passed;
        row.accept(id);
        passed += texts.text(id);
      }
      return row.mask()![0]! & 1 ? 'whole' : passed;
    } finally {
      form.dispose();
    }
  }

  it('are bound in the form that the template writes', async () => {
    const hermes = '{{ tools }}<tool_call>';
    for (const [request, text, expected] of [
      [{}, 'It rains <today> and <tool things.', 'whole'],
      [{}, CALL, 'whole'],
      [{}, `Let me see.\n${CALL}\n${CALL}`, 'whole'],
      [{ parallel_tool_calls: false }, `${CALL}\n${CALL}`, CALL],
      [{ tool_choice: 'required' }, CALL, 'whole'],
      [{ tool_choice: 'required' }, 'It rains', ''],
      [{ tool_choice: { type: 'function', function: { name: 'weather' } } }, CALL, 'whole'],
    ] as const) {
      const passed = await passes(hermes, request, text);
      expect(
        expected === 'whole' ? passed : text.startsWith(passed) && passed.length <= expected.length,
        `${text}: ${passed}`,
      ).to.equal(expected === 'whole' ? 'whole' : true);
    }
    const wrong = CALL.replace('Bath', 'York');
    expect(wrong.startsWith(await passes(hermes, {}, wrong))).to.equal(true);
    expect(await passes('{{ tools }}', {}, '{"name": "weather", "arguments": {"city": "Rome"}}')).to.equal('whole');
    expect(await passes('{{ tools }}', {}, 'It rains.')).to.equal('whole');
    expect(await passes('{{ tools }}', { tool_choice: 'required' }, 'It rains.')).to.equal('');
  });

  it('are read from the text as it comes, whatever its pieces', () => {
    for (const size of [1, 3, 7, 1000]) {
      const reader = new CallReader(TAGGED);
      const text = `Let me see. <b>\n${CALL}\n${CALL}`;
      let content = '';
      const calls: { name?: string; arguments?: string }[] = [];
      for (let at = 0; at < text.length; at += size) {
        const delta = reader.push(text.slice(at, at + size), at + size >= text.length);
        content += delta.content ?? '';
        for (const call of delta.tool_calls ?? []) calls[call.index] = call.function;
      }
      expect(content).to.equal('Let me see. <b>\n');
      expect(calls).to.deep.equal(Array.from({ length: 2 }, () => ({ name: 'weather', arguments: '{"city":"Bath"}' })));
      expect(reader.called).to.equal(true);
    }
    const cut = new CallReader(TAGGED);
    expect(cut.push('Hm <tool_call>\n{"name": "wea', true)).to.deep.equal({ content: 'Hm <tool_call>\n{"name": "wea' });
    expect(cut.called).to.equal(false);
    const bare = new CallReader(BARE);
    expect(bare.push('{"name": "f", ', false)).to.deep.equal({});
    expect(bare.push('"arguments": {}}', true).tool_calls![0]!.function).to.deep.equal({ name: 'f', arguments: '{}' });
    expect(new CallReader(BARE).push('Plain {text}', true)).to.deep.equal({ content: 'Plain {text}' });
  });
});
