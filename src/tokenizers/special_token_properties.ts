import { TokenizerError } from '../base/errors.js';
import { quote } from '../base/quote.js';
import { Callable } from './callable.js';
import type { SpecialTokenName, SpecialTokens } from './special_tokens.js';

/**
 * The named special tokens as properties, by text and by id, null where there is none. Setting one sets the other:
 * `tokenizer.pad_token = tokenizer.eos_token`. A token must be in the vocabulary.
 */
export abstract class SpecialTokenProperties<Arguments extends unknown[], Result> extends Callable<Arguments, Result> {
  private named: SpecialTokens;

  constructor(tokens: SpecialTokens) {
    super();
    this.named = tokens;
  }

  /** The id of a token, null where there is none. */
  abstract token_to_id(token: string): number | null;
  /** The token of an id, null where there is none. */
  abstract id_to_token(id: number): string | null;

  /** The named special tokens. */
  get special_tokens(): SpecialTokens {
    return this.named;
  }

  get bos_token(): string | null {
    return this.textOf('bos_token');
  }
  set bos_token(token: string | null) {
    this.setToken('bos_token', token);
  }
  get bos_token_id(): number | null {
    return this.idOf('bos_token');
  }
  set bos_token_id(id: number | null) {
    this.setId('bos_token', id);
  }
  get eos_token(): string | null {
    return this.textOf('eos_token');
  }
  set eos_token(token: string | null) {
    this.setToken('eos_token', token);
  }
  get eos_token_id(): number | null {
    return this.idOf('eos_token');
  }
  set eos_token_id(id: number | null) {
    this.setId('eos_token', id);
  }
  get unk_token(): string | null {
    return this.textOf('unk_token');
  }
  set unk_token(token: string | null) {
    this.setToken('unk_token', token);
  }
  get unk_token_id(): number | null {
    return this.idOf('unk_token');
  }
  set unk_token_id(id: number | null) {
    this.setId('unk_token', id);
  }
  get sep_token(): string | null {
    return this.textOf('sep_token');
  }
  set sep_token(token: string | null) {
    this.setToken('sep_token', token);
  }
  get sep_token_id(): number | null {
    return this.idOf('sep_token');
  }
  set sep_token_id(id: number | null) {
    this.setId('sep_token', id);
  }
  get pad_token(): string | null {
    return this.textOf('pad_token');
  }
  set pad_token(token: string | null) {
    this.setToken('pad_token', token);
  }
  get pad_token_id(): number | null {
    return this.idOf('pad_token');
  }
  set pad_token_id(id: number | null) {
    this.setId('pad_token', id);
  }
  get cls_token(): string | null {
    return this.textOf('cls_token');
  }
  set cls_token(token: string | null) {
    this.setToken('cls_token', token);
  }
  get cls_token_id(): number | null {
    return this.idOf('cls_token');
  }
  set cls_token_id(id: number | null) {
    this.setId('cls_token', id);
  }
  get mask_token(): string | null {
    return this.textOf('mask_token');
  }
  set mask_token(token: string | null) {
    this.setToken('mask_token', token);
  }
  get mask_token_id(): number | null {
    return this.idOf('mask_token');
  }
  set mask_token_id(id: number | null) {
    this.setId('mask_token', id);
  }

  private textOf(name: SpecialTokenName): string | null {
    return this.named[name]?.content ?? null;
  }

  private idOf(name: SpecialTokenName): number | null {
    return this.named[name]?.id ?? null;
  }

  private setToken(name: SpecialTokenName, token: string | null): void {
    const id = typeof token === 'string' ? this.token_to_id(token) : null;
    if (token !== null && id === null) {
      throw new TokenizerError(
        `${name} cannot be ${quote(token)}: the vocabulary has no such token. Set a token that it has, or null for none; new tokens ` +
          `come with the option ${name} of from_pretrained(), and need a model that knows them.`,
        { option: name, got: token },
      );
    }
    this.put(name, token, id);
  }

  private setId(name: SpecialTokenName, id: number | null): void {
    const token = Number.isInteger(id) ? this.id_to_token(id!) : null;
    if (id !== null && token === null) {
      throw new TokenizerError(`${name}_id cannot be ${quote(id)}: the vocabulary has no such id.`, {
        option: `${name}_id`,
        got: id,
      });
    }
    this.put(name, token, id);
  }

  private put(name: SpecialTokenName, content: string | null, id: number | null): void {
    // a new record: what was given out before stays as it was
    const token = content === null || id === null ? undefined : { content, id };
    this.named = { ...this.named };
    if (token) this.named[name] = token;
    else delete this.named[name];
  }
}
