import type { HubOptions } from '../../checkpoints/index.js';
import { Tokenizer } from '../../tokenizers/index.js';
import type { TokenizerOptions } from '../../tokenizers/index.js';
import { locateModel } from '../locate.js';

/**
 * Finds the tokenizer of a model folder.
 *
 * @example
 * const tokenizer = await AutoTokenizer.from_pretrained('models/tiny-books-mamba2');
 */
export class AutoTokenizer {
  private constructor() {}

  /**
   * @param name a folder with tokenizer.json, and tokenizer_config.json where there is one; or a repository on the hub, of which the tokenizer alone is fetched
   * @throws TokenizerError when there is no tokenizer or a file is malformed
   */
  static async from_pretrained(name: string, options: TokenizerOptions & HubOptions = {}): Promise<Tokenizer> {
    const { dir, rest } = await locateModel(name, options, 'tokenizer');
    return Tokenizer.from_pretrained(dir, rest);
  }
}
