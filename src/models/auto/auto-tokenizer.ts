import { Tokenizer } from '../../tokenizers/index.js';
import type { TokenizerOptions } from '../../tokenizers/index.js';

/**
 * Finds the tokenizer of a model folder.
 *
 * ```ts
 * const tokenizer = await AutoTokenizer.from_pretrained('models/tiny-books-mamba2');
 * ```
 */
export class AutoTokenizer {
  private constructor() {}

  /**
   * @param dir a folder with tokenizer.json, and tokenizer_config.json where there is one
   * @throws TokenizerError when there is no tokenizer or a file is malformed
   */
  static async from_pretrained(dir: string, options: TokenizerOptions = {}): Promise<Tokenizer> {
    return Tokenizer.from_pretrained(dir, options);
  }
}
