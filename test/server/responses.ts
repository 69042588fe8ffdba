/** Tests of `/v1/responses`, by the server of routes.test.ts: the same answers as chats give, events in their order, conversations that go on by an id, and refusals by name. */
import { expect } from 'chai';
import { messagesOf } from '../../src/server/responses/input.js';
import { StoredResponses } from '../../src/server/responses/stored.js';
import type { TestServer } from './support.js';

/** As small as templates are that know of tools. */
export const TOOL_TEMPLATE =
  '{% if tools %}<|tools|>\n{{ tools | tojson }}\n{% endif %}' +
  '{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{% endfor %}' +
  '{% if add_generation_prompt %}<|assistant|>\n{% endif %}';

interface Item {
  id: string;
  type: string;
  status: string;
  content?: { type: string; text: string }[];
  name?: string;
  arguments?: string;
}
interface Got {
  id: string;
  status: string;
  output: Item[];
  usage: { input_tokens: number; output_tokens: number; input_tokens_details: { cached_tokens: number } };
  incomplete_details: object | null;
  previous_response_id: string | null;
  error?: { param: string; code: string };
}
interface StreamEvent {
  type: string;
  sequence_number: number;
  delta?: string;
  text?: string;
  item?: Item;
  response?: Got;
}

export function responseTests(theServer: () => TestServer): void {
  let server: TestServer;
  before(() => {
    server = theServer();
  });

  const respond = async (body: object, status = 200): Promise<Got> => {
    const answer = await server.post('/v1/responses', { max_output_tokens: 8, temperature: 0, ...body });
    expect(answer.status, JSON.stringify(answer.body)).to.equal(status);
    return answer.body as unknown as Got;
  };
  const events = async (body: object): Promise<StreamEvent[]> => {
    const response = await fetch(`${server.url}/v1/responses`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ max_output_tokens: 8, temperature: 0, ...body, stream: true }),
    });
    return (await response.text())
      .split('\n\n')
      .filter((each) => each !== '')
      .map((each) => {
        const [, name, data] = /^event: (\S+)\ndata: (.*)$/.exec(each)!;
        const event = JSON.parse(data!) as StreamEvent;
        expect(event.type).to.equal(name);
        return event;
      });
  };
  const chat = async (messages: readonly object[]): Promise<string> => {
    const { body } = await server.post('/v1/chat/completions', { messages, max_tokens: 8, temperature: 0 });
    return (body.choices as { message: { content: string } }[])[0]!.message.content;
  };
  const textOf = ({ output }: Got): string => output[0]!.content![0]!.text;

  it('responses are what a chat answers to the same messages', async () => {
    const user = { role: 'user', content: 'Who is Emma?' };
    const got = await respond({ input: 'Who is Emma?', instructions: 'Be brief.' });
    expect(textOf(got)).to.equal(await chat([{ role: 'system', content: 'Be brief.' }, user]));
    expect(got).to.deep.include({ object: 'response', status: 'incomplete', error: null, instructions: 'Be brief.' });
    expect(got.incomplete_details).to.deep.equal({ reason: 'max_output_tokens' });
    expect(got.usage.output_tokens).to.equal(8);
    const parts = [{ type: 'input_text', text: 'Who is ' }, { type: 'input_text', text: 'Emma?' }]; // prettier-ignore
    expect(textOf(await respond({ input: [{ role: 'user', content: parts }] }))).to.equal(await chat([user]));
  });

  it('responses come in events that put the same response together', async () => {
    const body = { input: 'Who is Emma?' };
    const whole = await respond(body);
    const got = await events(body);
    expect(got.map(({ sequence_number }) => sequence_number)).to.deep.equal(got.map((_, at) => at));
    const types = got.map(({ type }) => type.replace('response.', ''));
    expect(types.filter((type, at) => type !== types[at - 1])).to.deep.equal([
      ...['created', 'in_progress', 'output_item.added', 'content_part.added', 'output_text.delta'],
      ...['output_text.done', 'content_part.done', 'output_item.done', 'incomplete'],
    ]);
    const text = got.map(({ type, delta }) => (type === 'response.output_text.delta' ? delta : '')).join('');
    expect(text).to.equal(textOf(whole));
    expect(got.find(({ type }) => type === 'response.output_text.done')!.text).to.equal(text);
    const last = got.at(-1)!.response!;
    expect(last.output[0]!.content).to.deep.equal(whole.output[0]!.content);
    expect(got.find(({ type }) => type === 'response.output_item.done')!.item).to.deep.equal(last.output[0]);
  });

  it('responses go on from one another, and read their new text only', async () => {
    const first = await respond({ input: 'Who is Emma? '.repeat(30), instructions: 'Be brief.' });
    const second = await respond({ input: 'And Anna?', previous_response_id: first.id });
    const messages = [
      { role: 'user', content: 'Who is Emma? '.repeat(30) },
      { role: 'assistant', content: textOf(first) },
      { role: 'user', content: 'And Anna?' },
    ];
    // instructions are those of one request
    expect(textOf(second)).to.equal(await chat(messages));
    expect(second.previous_response_id).to.equal(first.id);
    const third = await respond({ input: 'Why?', previous_response_id: second.id });
    const { input_tokens, input_tokens_details } = third.usage;
    expect(input_tokens - input_tokens_details.cached_tokens).to.be.lessThan(60);
    const fetched = await server.get(`/v1/responses/${second.id}`);
    expect(fetched.body).to.deep.equal(second);
    expect((await server.get(`/v1/responses/${second.id}`, { method: 'DELETE' })).body).to.include({ deleted: true });
    expect((await server.get(`/v1/responses/${second.id}`)).status).to.equal(404);
    const gone = await respond({ input: 'x', previous_response_id: second.id }, 400);
    expect(gone.error).to.include({ param: 'previous_response_id', code: 'previous_response_not_found' });
    const unstored = await respond({ input: 'x', store: false });
    expect((await server.get(`/v1/responses/${unstored.id}`)).status).to.equal(404);
  });

  it('responses fit a schema, and call functions, whose results go on', async () => {
    const schema = { type: 'object', properties: { mood: { enum: ['glad', 'sad'] } }, required: ['mood'], additionalProperties: false }; // prettier-ignore
    const format = { type: 'json_schema', name: 'mood', schema };
    const formed = await respond({ input: 'How?', max_output_tokens: 40, text: { format } });
    expect(JSON.parse(textOf(formed)))
      .to.have.property('mood')
      .oneOf(['glad', 'sad']);
    expect(formed.status).to.equal('completed');
    const tools = [{ type: 'function', name: 'look', parameters: schema }];
    const asked = { input: 'Look.', max_output_tokens: 60, tools, tool_choice: 'required' };
    const got = await events(asked);
    const types = got.map(({ type }) => type.replace('response.', ''));
    expect(types).to.deep.equal([
      ...['created', 'in_progress', 'output_item.added', 'function_call_arguments.delta'],
      ...['function_call_arguments.done', 'output_item.done', 'completed'],
    ]);
    const { response } = got.at(-1)!;
    const [call] = response!.output as (Item & { call_id: string })[];
    expect([call!.type, call!.name]).to.deep.equal(['function_call', 'look']);
    expect(JSON.parse(call!.arguments!)).to.have.property('mood').oneOf(['glad', 'sad']);
    const result = [{ type: 'function_call_output', call_id: call!.call_id, output: 'It rains.' }];
    const next = await respond({ input: result, previous_response_id: response!.id, tools, tool_choice: 'none' });
    expect(next.output[0]!.type).to.equal('message');
  });

  it('responses refuse what is not there, by the names of this path', async () => {
    for (const [body, param, code] of [
      [{ input: 'x', background: true }, 'background', 'unsupported_parameter'],
      [{ input: 'x', truncation: 'auto' }, 'truncation', 'unsupported_parameter'],
      [{ input: 'x', include: ['file_search_call.results'] }, 'include', 'unsupported_parameter'],
      [{ input: 'x', reasoning: { effort: 'high' } }, 'reasoning', 'unsupported_parameter'],
      [{ input: 'x', conversation: 'conv_1' }, 'conversation', 'unsupported_parameter'],
      [{ input: 'x', max_tokens: 4 }, 'max_tokens', 'unknown_parameter'],
      [{ input: 'x', n: 2 }, 'n', 'unknown_parameter'],
      [{}, 'input', 'missing_required_parameter'],
      [{ input: 'x', max_output_tokens: 4097 }, 'max_output_tokens', 'above_limit'],
      [{ input: 'x', tools: [{ type: 'web_search' }] }, 'tools[0].name', 'missing_required_parameter'],
      [
        { input: 'x', tools: [{ type: 'function', name: 'a', parameters: { not: {} } }] },
        'tools[0].parameters.not',
        'unsupported_schema',
      ],
      [
        { input: 'x', text: { format: { type: 'json_schema', name: 'a', schema: { not: {} } } } },
        'text.format.schema.not',
        'unsupported_schema',
      ],
      [
        { input: 'x', text: { format: { type: 'json_schema', name: 'a' } } },
        'text.format.schema',
        'missing_required_parameter',
      ],
      [{ input: 'x', text: { verbosity: 'low' } }, 'text.verbosity', 'invalid_value'],
      [
        { input: [{ role: 'user', content: [{ type: 'input_image', image_url: 'x' }] }] },
        'input[0].content[0].type',
        'unsupported_parameter',
      ],
      [{ input: [{ type: 'item_reference', id: 'x' }] }, 'input[0].type', 'unsupported_parameter'],
      [{ input: [{ role: 'robot', content: 'x' }] }, 'input[0].role', 'invalid_value'],
      [{ input: [{ role: 'user' }] }, 'input[0].content', 'invalid_type'],
      [{ input: [{ type: 'function_call', name: 'a' }] }, 'input[0].call_id', 'missing_required_parameter'],
      [{ input: 'x', previous_response_id: 'resp_none' }, 'previous_response_id', 'previous_response_not_found'],
    ] as const) {
      // prettier-ignore
      const { error } = await respond({ temperature: 0, ...body }, 400);
      expect([error!.param, error!.code], JSON.stringify(body)).to.deep.equal([param, code]);
    }
  });

  it('responses read calls of one answer as one message', () => {
    const call = (id: string): object => ({ type: 'function_call', call_id: id, name: 'look', arguments: '{}' });
    const items = [
      { role: 'assistant', content: 'Let me see.' },
      call('a'),
      call('b'),
      { type: 'function_call_output', call_id: 'a', output: 'rain' },
    ];
    const [said, result, ...more] = messagesOf(items as Record<string, unknown>[]);
    expect(more).to.have.length(0);
    expect([said!.content, (said!.tool_calls as { id: string }[]).map(({ id }) => id)]).to.deep.equal([
      'Let me see.',
      ['a', 'b'],
    ]);
    expect(result).to.deep.equal({ role: 'tool', tool_call_id: 'a', content: 'rain' });
  });

  it('responses are forgotten, those asked for longest ago first, by their number and by their size', () => {
    const of = (text: string): { response: object; messages: [] } => ({ response: { text }, messages: [] });
    const stored = new StoredResponses(2, 300);
    for (const id of ['a', 'b']) stored.keep(id, of(id) as never);
    stored.get('a');
    stored.keep('c', of('c') as never);
    expect(['a', 'b', 'c'].filter((id) => stored.get(id))).to.deep.equal(['a', 'c']);
    stored.keep('d', of('d'.repeat(280)) as never);
    expect(['a', 'c', 'd'].filter((id) => stored.get(id))).to.deep.equal(['d']);
  });
}
