import { readFile } from 'node:fs/promises';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, DeviceError, TokenizerError } from '../../src/base/errors.js';
import { AutoModelForCausalLM, AutoTokenizer } from '../../src/models/auto/index.js';
import { BatchEncoding, Tokenizer, readTokenizerFiles } from '../../src/tokenizers/index.js';
import type { TokenizerBackendName, TokenizerCallOptions } from '../../src/tokenizers/index.js';
import { rejection, thrown } from '../support/errors.js';

const MODEL = 'models/tiny-books-mamba2';

interface Encoded<T> {
  input_ids: T;
  attention_mask: T;
}

interface Fixture {
  texts: string[];
  calls: {
    around: boolean;
    padding_side: 'left' | 'right';
    truncation_side: 'left' | 'right';
    model_max_length: number | null;
    options: TokenizerCallOptions & { return_tensors?: null };
    one: Encoded<number[]>;
    several: Encoded<number[][]>;
  }[];
  decoded: { ids: number[][]; options: { skip_special_tokens?: boolean }; text: string | string[]; batch: string[] }[];
}

/** The model's tokenizer with a token before and one behind every text. */
async function surrounded(backend: TokenizerBackendName): Promise<Tokenizer> {
  const files = await readTokenizerFiles(MODEL);
  const token = (id: string): unknown => ({ SpecialToken: { id, type_id: 0 } });
  const single = [token('<|endoftext|>'), { Sequence: { id: 'A', type_id: 0 } }, token('<|padding|>')];
  const post_processor = {
    type: 'TemplateProcessing',
    single,
    pair: [...single, { Sequence: { id: 'B', type_id: 0 } }],
    special_tokens: Object.fromEntries(
      ['<|endoftext|>', '<|padding|>'].map((id, n) => [id, { id, ids: [n], tokens: [id] }]),
    ),
  };
  return Tokenizer.from_files({ ...files, tokenizer: { ...files.tokenizer, post_processor } }, { backend });
}

describe('a tokenizer that is called', () => {
  let fixture: Fixture;
  let tokenizer: Tokenizer;
  before(async () => {
    fixture = JSON.parse(await readFile('test/fixtures/tokenizer_calls.json', 'utf8')) as Fixture;
  });
  beforeEach(async () => {
    tokenizer = await AutoTokenizer.from_pretrained(MODEL);
  });

  for (const backend of ['native', 'javascript'] as const) {
    it(`gives what transformers gives, padded and cut on both sides (${backend})`, async () => {
      const plain = await AutoTokenizer.from_pretrained(MODEL, { backend });
      const around = await surrounded(backend);
      expect(fixture.calls.length).to.equal(168);
      for (const call of fixture.calls) {
        const used = call.around ? around : plain;
        used.padding_side = call.padding_side;
        used.truncation_side = call.truncation_side;
        used.model_max_length = call.model_max_length;
        const { one, several, ...what } = call;
        const label = JSON.stringify(what);
        expect({ ...(await used(fixture.texts[0]!, call.options)) }, label).to.deep.equal(one);
        expect({ ...(await used(fixture.texts, call.options)) }, label).to.deep.equal(several);
        if (several.input_ids.some((row) => row.length !== several.input_ids[0]!.length)) continue;
        const tensors = await used(fixture.texts, { ...call.options, return_tensors: 'tf' });
        for (const key of ['input_ids', 'attention_mask'] as const) {
          expect(tensors[key].dtype).to.equal('int32');
          expect(await tensors[key].array(), label).to.deep.equal(several[key]);
        }
        tensors.dispose();
      }
    });
  }

  it('is a Tokenizer, a function, and nothing of a function', () => {
    expect(tokenizer).to.be.instanceOf(Tokenizer).and.to.be.a('function');
    expect(Object.keys(tokenizer)).to.not.include('name');
    expect(tokenizer).to.not.have.property('length');
  });

  it('gives tensors [1, t] of one text', async () => {
    const encoding = await tokenizer('Hello', { return_tensors: 'tf' });
    expect(encoding.input_ids.shape).to.deep.equal([1, 3]);
    expect(await tokenizer.decode(encoding.input_ids)).to.deep.equal(['Hello']);
    encoding.dispose();
    expect(encoding.attention_mask.isDisposed).to.equal(true);
  });

  it('has its encoding go to the device in use, and to no other', async () => {
    await tf.setBackend('cpu');
    const encoding = await tokenizer('Hello', { return_tensors: 'tf' });
    for (const device of ['cpu', 'auto', 'js', -1] as const) expect(encoding.to(device)).to.equal(encoding);
    for (const device of ['cuda', 0, 'cuda:1', 'wasm'] as const) {
      const error = thrown(() => encoding.to(device));
      expect(error).to.be.instanceOf(DeviceError);
      expect(error.message).to.include(String(device));
    }
    expect(thrown(() => encoding.to('gpux' as 'gpu'))).to.be.instanceOf(ArgumentError);
    encoding.dispose();
    // lists lie nowhere
    expect((await tokenizer('Hello')).to('cuda').input_ids.length).to.equal(3);
  });

  it('refuses texts that are none, rows that make no tensor, and options that it has not', async () => {
    const cases: [unknown, unknown, string][] = [
      [undefined, {}, 'got undefined'],
      [['a', undefined], {}, 'position 1'],
      [[['a']], {}, 'a list of texts'],
      [Promise.resolve('a'), {}, 'expected a text'],
      ['a', 'b', 'where its options belong'],
      [['a', 'b c d e f'], { return_tensors: 'tf' }, 'padding: true'],
      [[], { return_tensors: 'tf' }, 'no texts'],
      ['a', { return_tensors: 'pt' }, "expected 'tf'"],
      ['a', { return_tensors: 'np' }, "expected 'tf'"],
      ['a', { paddng: true }, 'padding'],
      ['a', { padding: 'left' }, 'padding is "left"'],
      ['a', { max_length: 5 }, 'truncation: true'],
      ['a', { max_length: -1, truncation: true }, 'max_length is -1'],
      ['a', { max_lenght: 5, truncation: true }, 'max_length'],
      ['a', { truncation: true }, 'model_max_length'],
      ['a', { padding: 'max_length' }, 'model_max_length'],
      ['a', { padding_side: 'left' }, 'padding: true'],
      ['a', { padding: true, padding_side: 'up' }, "'left' or 'right'"],
      ['a', { pad_to_multiple_of: 8 }, 'padding: true'],
      ['a', { padding: true, pad_to_multiple_of: 0 }, 'pad_to_multiple_of'],
      ['a', { truncation_side: 'left' }, 'truncation: true'],
      ['a', { truncation: 'only_second' }, 'truncation'],
      ['a', { text_pair: 'b' }, 'text_pair'],
      ['a', { return_token_type_ids: true }, 'token types'],
      ['a', { return_attention_mask: false }, 'return_attention_mask'],
      ['a', { return_offsets_mapping: true }, 'return_offsets_mapping'],
      ['a', { stride: 4 }, 'stride'],
    ];
    for (const [text, options, part] of cases) {
      const error = await rejection((tokenizer as (...given: unknown[]) => Promise<unknown>)(text, options));
      expect(error, part).to.be.instanceOf(TokenizerError);
      expect(error.message).to.include(part);
    }
    // what asks for nothing passes
    const off = { return_token_type_ids: false, stride: 0, text_pair: null, return_attention_mask: true };
    expect((await tokenizer('Hello', off as TokenizerCallOptions)).input_ids).to.deep.equal([41, 451, 80]);
  });

  it('decodes what transformers decodes, and all that holds ids', async () => {
    for (const { ids, options, text, batch } of fixture.decoded) {
      expect(await tokenizer.decode(ids, options)).to.deep.equal(text);
      if (ids.length > 0) expect(await tokenizer.batch_decode(ids, options)).to.deep.equal(batch);
    }
    expect(await tokenizer.batch_decode([])).to.deep.equal([]);
    const row = [41, 451, 80];
    const one = tf.tensor1d(row, 'int32');
    const two = tf.tensor2d([row, row], [2, 3], 'int32');
    for (const ids of [row, Int32Array.from(row), BigInt64Array.from(row.map(BigInt)), one, { input_ids: row }]) {
      expect(await tokenizer.decode(ids as number[])).to.equal('Hello');
      expect(await tokenizer.batch_decode(ids as number[])).to.deep.equal(['Hello']);
    }
    const rows = [
      [row, row],
      two,
      [one, one],
      [Int32Array.from(row), row],
      { input_ids: two },
      { sequences: [row, row] },
    ];
    for (const ids of [...rows, new BatchEncoding([row, row], [row, row])]) {
      expect(await tokenizer.decode(ids as number[][])).to.deep.equal(['Hello', 'Hello']);
      expect(await tokenizer.batch_decode(ids)).to.deep.equal(['Hello', 'Hello']);
    }
    expect(await tokenizer.decode(tf.scalar(41, 'int32'))).to.equal('H');
    expect(await tokenizer.decode(41)).to.equal('H');
    tf.dispose([one, two]);
  });

  it('says what to pass where there are no ids', async () => {
    const gone = tf.tensor1d([1], 'int32');
    gone.dispose();
    const nothings: unknown[] = [
      undefined,
      null,
      'Hello',
      ['Hello'],
      [[1], 'x'],
      [1, [2]],
      [[[1]]],
      1.5,
      -1,
      [NaN],
      {},
    ];
    const more = [Promise.resolve([1]), tf.zeros([1, 1, 1]), tf.tensor1d(['a']), gone, { input_ids: 'x' }, [2 ** 40]];
    for (const value of [...nothings, ...more, new DataView(new ArrayBuffer(8))]) {
      for (const call of [tokenizer.decode, tokenizer.batch_decode]) {
        const error = await rejection(call.call(tokenizer, value as number[]));
        expect(error).to.be.instanceOf(TokenizerError);
        expect(error.message).to.match(/expected ids|disposed/);
      }
    }
    expect((await rejection(tokenizer.decode(Promise.resolve([1]) as unknown as number[]))).message).to.include(
      'await',
    );
    expect((await rejection(tokenizer.decode([1], { skip_special_token: true } as object))).message).to.include(
      'skip_special_tokens',
    );
  });

  it('has special tokens and sides that can be set', async () => {
    tokenizer.pad_token = tokenizer.eos_token;
    expect([tokenizer.pad_token, tokenizer.pad_token_id]).to.deep.equal(['<|endoftext|>', 0]);
    tokenizer.padding_side = 'right';
    expect((await tokenizer(['Hello', 'H'], { padding: true })).input_ids[1]).to.deep.equal([41, 0, 0]);
    tokenizer.pad_token_id = 451;
    expect(tokenizer.special_tokens.pad_token).to.deep.equal({ content: tokenizer.id_to_token(451), id: 451 });
    for (const name of ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'cls_token', 'mask_token'] as const) {
      tokenizer[name] = '<|padding|>';
      expect(tokenizer[`${name}_id`]).to.equal(1);
      tokenizer[`${name}_id`] = null;
      expect(tokenizer[name]).to.equal(null);
    }
    for (const wrong of [
      () => (tokenizer.pad_token = 'no such token'),
      () => (tokenizer.pad_token = 7 as unknown as string),
      () => (tokenizer.pad_token_id = 9999),
      () => (tokenizer.pad_token_id = -1),
      () => (tokenizer.pad_token_id = 0.5),
      () => (tokenizer.padding_side = 'up' as 'left'),
      () => (tokenizer.truncation_side = undefined as unknown as 'left'),
      () => (tokenizer.model_max_length = 0),
      () => (tokenizer.chat_template = 7 as unknown as string),
    ]) {
      expect(thrown(wrong), String(wrong)).to.be.instanceOf(TokenizerError);
    }
    expect(tokenizer.pad_token_id).to.equal(451);
    expect(tokenizer.padding_side).to.equal('right');
  });

  it('gives what generate() and forward() take whole', async () => {
    await tf.setBackend('cpu');
    const model = await AutoModelForCausalLM.from_pretrained(MODEL, { engine: 'eager' });
    const [row] = await model.generate({ input_ids: [[41, 451, 80]], max_new_tokens: 2 });
    for (const return_tensors of [undefined, 'tf'] as const) {
      const encoding =
        return_tensors === 'tf' ? await tokenizer('Hello', { return_tensors }) : await tokenizer('Hello');
      const [again] = await model.generate({ ...encoding, max_new_tokens: 2 });
      expect(again).to.deep.equal(row);
      const { logits } = model.forward(encoding);
      expect(logits.shape.slice(0, 2)).to.deep.equal([1, 3]);
      logits.dispose();
      encoding.dispose();
    }
    const batch = await tokenizer(['Once upon a time', 'Hello'], { padding: true, return_tensors: 'tf' });
    expect((await model.generate({ ...batch, max_new_tokens: 2 }))[1]!.slice(-2)).to.deep.equal(row!.slice(-2));
    batch.dispose();
    model.dispose();
  });

  it('is loaded with the options of transformers, and refuses what it has not', async () => {
    const page = { revision: 'refs/pr/9', from_slow: true, legacy: false };
    expect((await AutoTokenizer.from_pretrained(MODEL, page)).vocab_size).to.equal(4096);
    const other = await AutoTokenizer.from_pretrained(MODEL, {
      padding_side: 'right',
      truncation_side: 'left',
      model_max_length: 2,
      pad_token: '<|pad|>',
      chat_template: '{{ bos_token }}{{ messages[0].content }}',
    });
    expect([other.pad_token_id, other.vocab_size, other.model_max_length]).to.deep.equal([4096, 4097, 2]);
    expect((await other('Hello', { truncation: true })).input_ids).to.deep.equal([451, 80]);
    const chat = [{ role: 'user', content: 'Hello' }];
    const encoding = await other.apply_chat_template(chat, { return_dict: true });
    expect(encoding.input_ids).to.deep.equal([0, 41, 451, 80]);
    const tensor = await other.apply_chat_template(chat, { return_tensors: 'tf' });
    expect(tensor.shape).to.deep.equal([1, 4]);
    tensor.dispose();
    for (const [options, part] of [
      [{ pading_side: 'left' }, 'padding_side'],
      [{ use_fast: false }, 'use_fast'],
      [{ trust_remote_code: true }, 'trust_remote_code'],
      [{ use_auth_token: 'x' }, 'token'],
      [{ backend: 'rust' }, "'native' or 'javascript'"],
      [{ add_bos_token: true }, 'post_processor'],
      [{ subfolder: 'x' }, 'subfolder'],
    ] as const) {
      const error = await rejection(AutoTokenizer.from_pretrained(MODEL, options as object));
      expect(error, part).to.be.instanceOf(TokenizerError);
      expect(error.message).to.include(part);
    }
    const error = await rejection(other.apply_chat_template(chat, { enable_thinking: true } as object));
    expect(error.message).to.include('template_variables');
  });
});
