import { toBase64 } from '../base/bytes.js';
import { TokenizerError } from '../base/errors.js';
import type { AddedTokenJson, TokenizerJson } from './backend.js';

/** One piece of a SentencePiece vocabulary; its place in the list is its id. */
interface Piece {
  piece: string;
  score: number;
  /** 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte */
  type: number;
}

/** Most characters of a piece that is made by merges; SentencePiece's own limit is 16 where none is given. */
const LONGEST_PIECE = 1000;

/** What a SentencePiece model file says, as far as it concerns us. */
interface SentencePieceModel {
  pieces: Piece[];
  /** 1 unigram, 2 BPE */
  modelType: number;
  byteFallback: boolean;
  special: { unk: number; bos: number; eos: number; pad: number };
  charsMap: Uint8Array;
  addDummyPrefix: boolean;
  removeExtraWhitespaces: boolean;
}

/** A tokenizer made of a SentencePiece model: what tokenizer.json and special_tokens_map.json would say. */
export interface ConvertedTokenizer {
  tokenizer: TokenizerJson;
  specialTokens: Record<string, string>;
  /** Mistral's chat format, where the vocabulary has its control tokens. */
  chatTemplate: string | undefined;
}

/**
 * Turns a SentencePiece model file (tokenizer.model, Mistral's tokenizer.model.v3) into a tokenizer of the tokenizers
 * library, which then gives the ids that SentencePiece gives. The beginning-of-text token is put before every text, as
 * mistral-common and transformers' LlamaTokenizer do.
 *
 * Source: sentencepiece_model.proto; transformers' convert_slow_tokenizer.py (LlamaConverter, generate_merges).
 *
 * @param bytes the file
 * @param file its name, for messages
 * @throws TokenizerError when it is no SentencePiece model, or one of a kind that is not BPE or unigram
 */
export function convertSentencePiece(bytes: Uint8Array, file: string): ConvertedTokenizer {
  const model = parseModel(bytes, file);
  const { pieces, special } = model;
  const token = (id: number): string | undefined => pieces[id]?.piece;
  const bos = token(special.bos);
  const added = pieces.flatMap((p, id): AddedTokenJson[] =>
    [2, 3, 4].includes(p.type) ? [addedToken(id, p.piece, p.type !== 4)] : [],
  );
  const tokenizer: TokenizerJson = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: normalizer(model),
    pre_tokenizer: null,
    post_processor: bos === undefined ? null : beginsWith(bos, special.bos),
    decoder: decoder(model),
    model: model.modelType === 2 ? bpe(model, file) : unigram(model),
  };
  const specialTokens: Record<string, string> = {};
  for (const [name, id] of Object.entries(special)) {
    const text = token(id);
    if (text !== undefined) specialTokens[`${name}_token`] = text;
  }
  const names = new Set(pieces.filter((p) => p.type === 3).map((p) => p.piece));
  const chats = names.has('[INST]') && names.has('[/INST]');
  return { tokenizer, specialTokens, chatTemplate: chats ? MISTRAL_TEMPLATE : undefined };
}

/** No spaces around the control tokens: the prefix space of each part is the tokenizer's. */
const MISTRAL_TEMPLATE = `{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('The roles must alternate: user, assistant, user, …') }}{% endif %}{% if message['role'] == 'user' %}[INST]{{ message['content'] }}[/INST]{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}`;

function addedToken(id: number, content: string, special: boolean): AddedTokenJson {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special };
}

function normalizer({ charsMap, removeExtraWhitespaces, addDummyPrefix }: SentencePieceModel): unknown {
  const steps: unknown[] = [];
  if (charsMap.length > 0) {
    steps.push({ type: 'Precompiled', precompiled_charsmap: toBase64(charsMap) });
  }
  if (removeExtraWhitespaces) {
    steps.push({ type: 'Strip', strip_left: true, strip_right: true });
    steps.push({ type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' });
  }
  if (addDummyPrefix) steps.push({ type: 'Prepend', prepend: '▁' });
  steps.push({ type: 'Replace', pattern: { String: ' ' }, content: '▁' });
  return { type: 'Sequence', normalizers: steps };
}

function decoder({ addDummyPrefix }: SentencePieceModel): unknown {
  const decoders: unknown[] = [
    { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
    { type: 'ByteFallback' },
    { type: 'Fuse' },
  ];
  if (addDummyPrefix) decoders.push({ type: 'Strip', content: ' ', start: 1, stop: 0 });
  return { type: 'Sequence', decoders };
}

function beginsWith(bos: string, id: number): unknown {
  const first = { SpecialToken: { id: bos, type_id: 0 } };
  const part = (name: string, type_id: number): unknown => ({ Sequence: { id: name, type_id } });
  return {
    type: 'TemplateProcessing',
    single: [first, part('A', 0)],
    pair: [first, part('A', 0), part('B', 1)],
    special_tokens: { [bos]: { id: bos, ids: [id], tokens: [bos] } },
  };
}

function unigram({ pieces, special, byteFallback }: SentencePieceModel): TokenizerJson['model'] {
  const vocab = pieces.map((p) => [p.piece, p.score]);
  return { type: 'Unigram', unk_id: special.unk, vocab, byte_fallback: byteFallback } as TokenizerJson['model'];
}

/**
 * SentencePiece joins, of all neighbours whose union is a piece, those with the best score first. As a list of merges:
 * every split of every piece into two pieces, by the score of the whole.
 */
function bpe({ pieces, special, byteFallback }: SentencePieceModel, file: string): TokenizerJson['model'] {
  const vocab = new Map<string, number>();
  pieces.forEach((p, id) => vocab.set(p.piece, id));
  const joins = new Set(pieces.filter((p) => p.type === 1).map((p) => p.piece));
  const merges: { left: string; right: string; score: number; sizes: [number, number] }[] = [];
  for (const { piece, score, type } of pieces) {
    if (type !== 1) continue;
    const characters = [...piece];
    if (characters.length > LONGEST_PIECE) {
      throw new TokenizerError(
        `${file} is not a SentencePiece model that can be used: a piece has ${characters.length} characters, more than ${LONGEST_PIECE}. ` +
          `Get the file again.`,
        { file },
      );
    }
    const splits = characters.slice(1).flatMap((_, i) => {
      const left = characters.slice(0, i + 1).join('');
      const right = characters.slice(i + 1).join('');
      if (!joins.has(left) || !joins.has(right)) return [];
      return [{ left, right, score, sizes: [i + 1, characters.length - i - 1] as [number, number] }];
    });
    splits.sort((a, b) => vocab.get(a.left)! - vocab.get(b.left)! || vocab.get(a.right)! - vocab.get(b.right)!);
    merges.push(...splits);
  }
  merges.sort((a, b) => b.score - a.score || b.sizes[0] - a.sizes[0] || b.sizes[1] - a.sizes[1]);
  return {
    type: 'BPE',
    dropout: null,
    unk_token: pieces[special.unk]?.piece ?? null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: true,
    byte_fallback: byteFallback,
    ignore_merges: false,
    vocab: Object.fromEntries(vocab),
    merges: merges.map(({ left, right }) => [left, right]),
  } as TokenizerJson['model'];
}

/** sentencepiece_model.proto, read by hand: the few fields that matter, all others skipped. */
function parseModel(bytes: Uint8Array, file: string): SentencePieceModel {
  const model: SentencePieceModel = {
    pieces: [],
    modelType: 1,
    byteFallback: false,
    special: { unk: 0, bos: 1, eos: 2, pad: -1 },
    charsMap: new Uint8Array(0),
    addDummyPrefix: true,
    removeExtraWhitespaces: true,
  };
  try {
    for (const [field, value] of fields(bytes)) {
      if (field === 1) model.pieces.push(parsePiece(asBytes(value)));
      else if (field === 2) parseTrainer(asBytes(value), model);
      else if (field === 3) parseNormalizer(asBytes(value), model);
    }
  } catch (cause) {
    throw new TokenizerError(
      `${file} is not a SentencePiece model: ${(cause as Error).message}. Get the file again.`,
      { file },
      { cause },
    );
  }
  if (model.pieces.length === 0) {
    throw new TokenizerError(`${file} is not a SentencePiece model: it has no pieces. Get the file again.`, { file });
  }
  if (model.modelType !== 1 && model.modelType !== 2) {
    throw new TokenizerError(
      `${file} is a SentencePiece model of type ${model.modelType}; expected unigram (1) or BPE (2).`,
      { file, got: model.modelType },
    );
  }
  return model;
}

function parsePiece(bytes: Uint8Array): Piece {
  const piece: Piece = { piece: '', score: 0, type: 1 };
  for (const [field, value] of fields(bytes)) {
    if (field === 1) piece.piece = new TextDecoder('utf-8', { fatal: true }).decode(asBytes(value));
    else if (field === 2) piece.score = asFloat(asBytes(value));
    else if (field === 3) piece.type = asNumber(value);
  }
  return piece;
}

function parseTrainer(bytes: Uint8Array, model: SentencePieceModel): void {
  const ids: Record<number, keyof SentencePieceModel['special']> = { 40: 'unk', 41: 'bos', 42: 'eos', 43: 'pad' };
  for (const [field, value] of fields(bytes)) {
    if (field === 3) model.modelType = asNumber(value);
    else if (field === 35) model.byteFallback = asNumber(value) !== 0;
    else if (field in ids) model.special[ids[field]!] = asNumber(value);
  }
}

function parseNormalizer(bytes: Uint8Array, model: SentencePieceModel): void {
  for (const [field, value] of fields(bytes)) {
    if (field === 2) model.charsMap = asBytes(value);
    else if (field === 3) model.addDummyPrefix = asNumber(value) !== 0;
    else if (field === 4) model.removeExtraWhitespaces = asNumber(value) !== 0;
  }
}

function asBytes(value: number | Uint8Array): Uint8Array {
  if (typeof value === 'number') throw new Error('a number where a text or message should be');
  return value;
}

function asFloat(bytes: Uint8Array): number {
  if (bytes.length !== 4) throw new Error(`${bytes.length} bytes where a float should be`);
  const value = new DataView(bytes.buffer, bytes.byteOffset, 4).getFloat32(0, true);
  if (!Number.isFinite(value)) throw new Error(`a score of ${value}`);
  return value;
}

function asNumber(value: number | Uint8Array): number {
  if (typeof value !== 'number') throw new Error('a text or message where a number should be');
  return value;
}

/** The fields of a protobuf message: number, and value (bytes for fixed 32 and 64 bit ones). */
function* fields(bytes: Uint8Array): Generator<[number, number | Uint8Array], void, undefined> {
  let at = 0;
  const varint = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      if (at >= bytes.length || shift > 63n) throw new Error(`a number at byte ${at} is cut off`);
      const byte = bytes[at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return Number(BigInt.asIntN(64, value));
    }
  };
  const take = (length: number): Uint8Array => {
    if (!(length >= 0) || length > bytes.length - at) {
      throw new Error(`a field at byte ${at} claims ${length} bytes of ${bytes.length - at}`);
    }
    return bytes.subarray(at, (at += length));
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag & 7;
    const field = Math.floor(tag / 8);
    if (kind === 0) yield [field, varint()];
    else if (kind === 1) yield [field, take(8)];
    else if (kind === 2) yield [field, take(varint())];
    else if (kind === 5) yield [field, take(4)];
    else throw new Error(`byte ${at} begins no field`);
  }
}
