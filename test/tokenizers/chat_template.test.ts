import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import { ChatTemplateError, TokenizerError } from '../../src/base/errors.js';
import { Tokenizer, readTokenizerFiles } from '../../src/tokenizers/index.js';
import type { ChatMessage, TemplateMessage } from '../../src/tokenizers/index.js';
import { rejection } from '../support/errors.js';

interface Case {
  name: string;
  template: string;
  messages: TemplateMessage[];
  options: Record<string, boolean>;
  text?: string;
  ids?: number[];
  error?: string;
}

describe('apply_chat_template', () => {
  const { cases } = { cases: [] as Case[] };
  let tokenizer: Tokenizer;
  const user: ChatMessage[] = [{ role: 'user', content: 'Hello' }];

  before(async () => {
    tokenizer = await Tokenizer.from_pretrained('models/tiny-books-mamba2');
    cases.push(...(JSON.parse(await readFile('test/fixtures/chat_templates.json', 'utf8')) as { cases: Case[] }).cases);
  });

  it('writes what transformers writes', async () => {
    expect(cases.length).to.equal(20);
    for (const { name, template, messages, options, text, ids, error } of cases) {
      const all = { ...options, chat_template: template };
      if (error !== undefined) {
        const got = await rejection(tokenizer.apply_chat_template(messages, all));
        expect(got, name).to.be.instanceOf(TokenizerError);
        expect(got.message, name).to.include(error);
        continue;
      }
      expect(await tokenizer.apply_chat_template(messages, { ...all, tokenize: false }), name).to.equal(text);
      expect(await tokenizer.apply_chat_template(messages, all), name).to.deep.equal(ids);
    }
  });

  it('writes booleans, None, lists and dates as Python does, and says which template fails', async () => {
    const tools = [{ type: 'function', strict: true, function: { name: 'now', parameters: { n: 1.5, none: null } } }];
    const text = (chat_template: string): Promise<string> =>
      tokenizer.apply_chat_template(user, { chat_template, tools, tokenize: false });
    expect(await text('{{ tools[0] }}')).to.equal(
      "{'type': 'function', 'strict': True, 'function': {'name': 'now', 'parameters': {'n': 1.5, 'none': None}}}",
    );
    const now = new Date();
    expect(await text("{{ strftime_now('%Y %-m') }}")).to.equal(`${now.getFullYear()} ${now.getMonth() + 1}`);
    const error = await rejection(text('{% for i in range(10 ** 9) %}{% endfor %}'));
    expect(error).to.be.instanceOf(ChatTemplateError);
    expect(error.message).to.include('MAX_RANGE');
  });

  it('cannot leave a message open that the template leaves out or changes', async () => {
    for (const chat_template of [
      '{{ messages[0].role }}',
      '{{ messages[0].content | upper }}',
      '{{ messages[0].content[5:] }}',
    ]) {
      const options = { chat_template, continue_final_message: true };
      const error = await rejection(tokenizer.apply_chat_template(user, options));
      expect(error, chat_template).to.be.instanceOf(TokenizerError);
      expect(error.message).to.include('continue_final_message');
    }
    expect(user).to.deep.equal([{ role: 'user', content: 'Hello' }]);
    for (const last of [{ tool_calls: [{}] }, { content: [{ type: 'image' }] }, { content: null, tool_calls: [{}] }]) {
      const options = { chat_template: '{{ messages[0].content }}', continue_final_message: true };
      const error = await rejection(tokenizer.apply_chat_template([...user, { role: 'assistant', ...last }], options));
      expect(error).to.be.instanceOf(TokenizerError);
      expect(error.message).to.include('continue_final_message');
    }
  });

  it('says so when the tokenizer has no template', async () => {
    const error = await rejection(tokenizer.apply_chat_template(user));
    expect(error).to.be.instanceOf(TokenizerError);
    expect(error.message).to.include('no chat template');
  });

  it('picks a template by name, and lists the names when none is the default', async () => {
    const files = await readTokenizerFiles('models/tiny-books-mamba2');
    const chatTemplates = { plain: '{{ messages[0].content }}', loud: '{{ messages[0].content | upper }}' };
    const several = await Tokenizer.from_files({ ...files, chat_templates: chatTemplates });
    const loud = { chat_template: 'loud', tokenize: false } as const;
    expect(await several.apply_chat_template(user, loud)).to.equal('HELLO');
    const error = await rejection(several.apply_chat_template(user));
    expect(error.message).to.include('plain, loud');
  });

  it('refuses what is no chat', async () => {
    const chat_template = '{{ messages[0].content }}';
    for (const messages of [
      [],
      'hello',
      [{ role: 'user' }],
      [{ role: 'user', content: null }],
      [{ role: 'user', content: 7 }],
      [null],
    ]) {
      const error = await rejection(tokenizer.apply_chat_template(messages as never, { chat_template }));
      expect(error).to.be.instanceOf(TokenizerError);
    }
    const both = { chat_template, add_generation_prompt: true, continue_final_message: true };
    expect((await rejection(tokenizer.apply_chat_template(user, both))).message).to.include('contradict');
    const broken = await rejection(tokenizer.apply_chat_template(user, { chat_template: '{% for %}' }));
    expect(broken).to.be.instanceOf(TokenizerError);
  });
});
