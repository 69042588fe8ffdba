import { OptionTable } from '../../base/options.js';
import { TokenizerError } from '../../base/errors.js';
import { HUB_OTHERS, HUB_RULES, type HubOptions, withoutHub } from '../../checkpoints/hub_options.js';
import { Tokenizer, TOKENIZER_OTHERS, TOKENIZER_RULES } from '../../tokenizers/index.js';
import type { TokenizerOptions } from '../../tokenizers/index.js';
import { locateModel } from '../locate.js';

/** Options of AutoTokenizer.from_pretrained: those of a tokenizer, and where it is found. */
export interface AutoTokenizerOptions extends TokenizerOptions, HubOptions {}

const TABLE = new OptionTable<AutoTokenizerOptions>(
  'AutoTokenizer.from_pretrained()',
  { ...HUB_RULES, ...TOKENIZER_RULES },
  { others: { ...HUB_OTHERS, ...TOKENIZER_OTHERS }, error: TokenizerError },
);

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
   * @throws TokenizerError when there is no tokenizer, a file is malformed, or for a wrong option
   */
  static async from_pretrained(name: string, options: AutoTokenizerOptions = {}): Promise<Tokenizer> {
    TABLE.check(options);
    const dir = await locateModel(name, options, 'tokenizer');
    return Tokenizer.from_pretrained(dir, withoutHub(options));
  }
}
