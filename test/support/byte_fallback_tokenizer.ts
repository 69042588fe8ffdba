import type { TokenizerFiles } from '../../src/tokenizers/index.js';

type AddedToken = NonNullable<TokenizerFiles['tokenizer']['added_tokens']>[number];

/**
 * A tiny tokenizer in the manner of SentencePiece: ▁ for spaces, a few letters, and bytes for whatever else. Its
 * decoder strips the first space, so a window decoded without context would lose the spaces between words.
 */
export function byteFallbackTokenizer(): TokenizerFiles {
  const vocab: Record<string, number> = { '<unk>': 0, '<s>': 1, '</s>': 2 };
  for (let byte = 0; byte < 256; byte++) {
    vocab[`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`] = 3 + byte;
  }
  for (const token of ['▁', 'a', 'b', '▁a', '▁b', 'ab']) vocab[token] = Object.keys(vocab).length;
  const special = (id: number, content: string): AddedToken => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  return {
    source: 'byte-fallback test tokenizer',
    tokenizer: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: [special(0, '<unk>'), special(1, '<s>'), special(2, '</s>')],
      normalizer: {
        type: 'Sequence',
        normalizers: [
          { type: 'Prepend', prepend: '▁' },
          { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
        ],
      },
      pre_tokenizer: null,
      post_processor: null,
      decoder: {
        type: 'Sequence',
        decoders: [
          { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
          { type: 'ByteFallback' },
          { type: 'Fuse' },
          { type: 'Strip', content: ' ', start: 1, stop: 0 },
        ],
      },
      model: {
        type: 'BPE',
        dropout: null,
        unk_token: '<unk>',
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: true,
        byte_fallback: true,
        ignore_merges: false,
        vocab,
        merges: ['▁ a', '▁ b', 'a b'],
      } as never,
    },
    config: { bos_token: '<s>', eos_token: '</s>' },
    special_tokens_map: {},
    chat_templates: {},
  };
}
