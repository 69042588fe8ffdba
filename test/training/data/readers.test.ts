import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import * as os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { ArgumentError } from '../../../src/base/errors.js';
import { readTokenizerFiles, Tokenizer } from '../../../src/tokenizers/index.js';
import { loadExamples, tokenizeExample } from '../../../src/training/data/index.js';
import { rejection } from '../../support/errors.js';

describe('files of examples', () => {
  let dir: string;
  beforeEach(async () => void (dir = await mkdtemp(path.join(os.tmpdir(), 'examples-'))));
  afterEach(() => rm(dir, { recursive: true }));
  const load = async (name: string, content: Uint8Array | string): Promise<unknown> => {
    const file = path.join(dir, name);
    await writeFile(file, content);
    return loadExamples(file);
  };
  const TWO = [{ text: 'one' }, { text: 'two' }];

  it('give the same examples with a byte-order mark, in UTF-16, and as JSON lines named .json', async () => {
    const [list, lines] = [JSON.stringify(TWO), TWO.map((example) => JSON.stringify(example)).join('\n')];
    for (const [name, text] of [
      ['a.json', list],
      ['b.json', lines],
      ['c.json', JSON.stringify(TWO, null, 2)],
      ['d.jsonl', lines],
      ['e.txt', 'one\r\ntwo\r\n'],
    ] as const) {
      expect(await load(name, text), name).to.deep.equal(TWO);
      expect(await load(name, `\uFEFF${text}`), `${name} with a mark`).to.deep.equal(TWO);
      expect(await load(name, Buffer.from(`\uFEFF${text}`, 'utf16le')), `${name} in UTF-16`).to.deep.equal(TWO);
    }
    expect(await load('one.json', '{"text":"one"}')).to.deep.equal([{ text: 'one' }]);
  });

  it('that are broken or in another encoding are errors with the name of the file', async () => {
    for (const [name, content] of [
      ['latin1.txt', Buffer.from('naïve café', 'latin1')],
      ['latin1.jsonl', Buffer.from('{"text":"café"}', 'latin1')],
      ['broken.json', '[{"text":"one"},]'],
      ['broken.jsonl', '{"text":"one"}\n{"text"'],
      ['number.json', '5'],
      ['object.json', '{\n"text": "one"\n}'],
      ['numbers.json', '[1, 2]'],
    ] as const) {
      const error = await rejection(load(name, content));
      expect(error, name).to.be.instanceOf(ArgumentError);
      expect(error.message, name).to.include(path.join(dir, name));
    }
  });
});

it('a prompt and a completion may be lists of messages: the completion alone is learnt', async () => {
  const files = await readTokenizerFiles('models/tiny-books-mamba2');
  const template =
    '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}';
  const tokenizer = await Tokenizer.from_files({ ...files, chat_templates: { default: template } });
  const prompt = [{ role: 'user', content: 'Who wrote it?' }];
  const completion = [{ role: 'assistant', content: 'A lady.' }];
  const { input_ids, labels } = (await tokenizeExample({ prompt, completion }, tokenizer))!;
  const whole = await tokenizer.encode('user: Who wrote it?\nassistant: A lady.\n');
  expect(input_ids).to.deep.equal([...whole, tokenizer.eos_token_id]);
  const learnt = input_ids.filter((_, i) => labels[i] !== -100);
  expect(await tokenizer.decode(learnt, { skip_special_tokens: true })).to.match(/^ ?A lady\.\n$/);
  const error = await rejection(tokenizeExample({ prompt: 'Who?', completion }, tokenizer));
  expect(error.message).to.include('prompt is a text').and.include('completion a list of messages');
});
