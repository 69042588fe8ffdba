/**
 * Trying a tokenizer in a process of its own. The native library answers what it does not expect by aborting, and no check of ours can
 * know all that it does not expect. So a file with parts that are not known to hold is loaded there once, and made to encode and decode; what
 * holds is remembered by its hash, in this process and in the user's cache.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { cacheRoot } from '../../base/cache_root.js';
import { TokenizerError } from '../../base/errors.js';
import { requireNear } from '../../base/package_files.js';
import { plain } from '../../base/quote.js';
import { privateFolder } from '../../base/private_folder.js';
import { EXPECTED, UNUSABLE } from './index.js';

/** Milliseconds for a text; as many again for each 10 MB of the file. It takes a few. */
const LIMIT = 4000;
const BYTES_PER_LIMIT = 10_000_000;
/** Milliseconds for a process to begin, on a machine that is busy. */
const START_LIMIT = 60_000;

/** Raised when more is tried, so that what was remembered before is tried again. */
const VERSION = 1;

/**
 * What the process runs, in CommonJS: the library's address and the file on standard input; a line for each thing that is about to be
 * done, so that the clock runs for that alone. It is text, because a bundle has no file for it.
 */
const SCRIPT = `
const { readFileSync } = require('node:fs');
const [library, ...parts] = readFileSync(0, 'utf8').split('\\n');
const step = (name) => require('node:fs').writeSync(1, name + '\\n');
const { Tokenizer } = require(library);
(async () => {
  step('load');
  const text = parts.join('\\n');
  let tokenizer;
  try {
    tokenizer = Tokenizer.fromString(text);
  } catch (error) {
    return step('refused ' + error.message.replace(/\\s+/g, ' ').slice(0, 300));
  }
  const { added_tokens: added = [] } = JSON.parse(text);
  const some = added.slice(0, 50).map((token) => token.content);
  const texts = [
    '', ' ', 'a', 'Hello, world! 123', "  I don't  know \\t\\n\\r\\n x=1; // été ŁÓDŹ ß Ω Ж\\u00a0", '中文字 日本語テキスト 한국어 عربى हिन्दी ไทย',
    '😀👩‍👧🇩🇪 e\\u0301 \\u200b\\u2028 ﬁ ½ ² Ⅷ ǅ \\ufeff', Array.from({ length: 128 }, (_, i) => String.fromCharCode(i)).join(''),
    Array.from({ length: 700 }, (_, i) => String.fromCodePoint(0x80 + i * 97)).filter((c) => !/\\p{Cs}/u.test(c)).join(''),
    some.join(''), some.join(' x '), some.map((each) => each.slice(0, -1)).join(''),
    ...['a', ' ', '\\n', '1', '!', 'é', '中', 'ab', 'A ', ' \\n', '\\r\\n', '1,', "'s"].map((each) => each.repeat(1000)),
    'a'.repeat(999) + '!', ' '.repeat(999) + 'a', '\\n'.repeat(999) + ' x',
  ];
  for (const each of texts) {
    step('encode');
    for (const addSpecialTokens of [true, false]) {
      try {
        const ids = (await tokenizer.encode(each, null, { addSpecialTokens })).getIds();
        await tokenizer.decode(ids, false);
        await tokenizer.decode(ids, true);
      } catch {
        // an error is what a caller can get, too
      }
    }
  }
  const size = tokenizer.getVocabSize(true);
  const stride = Math.max(1, Math.floor(size / 2000));
  step('decode');
  for (let id = 0; id <= size + stride; id += stride) await tokenizer.decode([id], false).catch(() => '');
  step('decode');
  for (const order of [1, -1]) {
    const ids = Array.from({ length: 2000 }, (_, i) => i * stride).filter((id) => id < size);
    await tokenizer.decode(order < 0 ? ids.reverse() : ids, false).catch(() => '');
  }
  step('holds');
})();
`;

/** What a trial came to. 'unable': there can be no process. */
type Verdict = 'holds' | 'unable' | { refused: string };

const known = new Map<string, Promise<Verdict>>();

/**
 * Tries a tokenizer in a process of its own, unless it has held before.
 *
 * @param text of its tokenizer.json, as it will be given to the native library
 * @param file its name, for messages
 * @returns whether it holds; false where no process can be started
 * @throws TokenizerError when the process aborts, does not come to an end, or is told that the file is none
 */
export async function holds(text: string, file: string): Promise<boolean> {
  let library: string;
  try {
    library = requireNear.resolve('tokenizers');
  } catch {
    return false; // a bundle far from its packages
  }
  const hash = createHash('sha256').update(`${VERSION}\n${library}\n`).update(text).digest('hex');
  let verdict = known.get(hash);
  if (!verdict) known.set(hash, (verdict = judge(text, library, hash)));
  const found = await verdict;
  if (typeof found === 'string') return found === 'holds';
  throw new TokenizerError(`${file} ${UNUSABLE}: ${found.refused}. ${EXPECTED}`, { file });
}

async function judge(text: string, library: string, hash: string): Promise<Verdict> {
  const folder = path.join(cacheRoot(), 'tokenizers');
  // one that others may write is no memory of ours
  const own = privateFolder(folder, true) === null;
  const mark = path.join(folder, hash);
  if (own && fs.existsSync(mark)) return 'holds';
  const verdict = await run(text, library);
  if (own && verdict === 'holds') await fs.promises.writeFile(mark, '').catch(() => undefined); // a full disk: tried again next time
  return verdict;
}

function start(): ChildProcess | null {
  try {
    // the loaders and limits of this process are not meant for that one
    const env = { ...process.env, NODE_OPTIONS: '', ELECTRON_RUN_AS_NODE: '1', RUST_BACKTRACE: '0' };
    return spawn(process.execPath, ['-e', SCRIPT], { env, stdio: ['pipe', 'pipe', 'pipe'], windowsHide: true });
  } catch {
    return null; // not permitted
  }
}

function run(text: string, library: string): Promise<Verdict> {
  const child = start();
  if (!child) return Promise.resolve('unable');
  const limit = LIMIT * (1 + Math.floor(text.length / BYTES_PER_LIMIT));
  return new Promise((resolve) => {
    let output = '';
    let errors = '';
    let late = false;
    let clock: NodeJS.Timeout;
    const wind = (ms: number): void => {
      clearTimeout(clock);
      clock = setTimeout(() => {
        late = true;
        child.kill('SIGKILL');
      }, ms);
    };
    wind(START_LIMIT);
    child.stdout!.setEncoding('utf8').on('data', (piece: string) => {
      output += piece;
      wind(limit);
    });
    child.stderr!.setEncoding('utf8').on('data', (piece: string) => (errors = (errors + piece).slice(0, 4000)));
    child.stdin!.on('error', () => undefined); // it died as it was told
    child.once('error', () => {
      clearTimeout(clock);
      resolve('unable');
    });
    child.once('close', (code) => {
      clearTimeout(clock);
      resolve(verdictOf(output.trimEnd().split('\n'), { code, late, errors, limit }));
    });
    child.stdin!.end(`${library}\n${text}`);
  });
}

interface End {
  code: number | null;
  late: boolean;
  errors: string;
  limit: number;
}

function verdictOf(steps: string[], { code, late, errors, limit }: End): Verdict {
  const last = steps.at(-1)!;
  if (last === 'holds') return 'holds';
  if (last.startsWith('refused ')) return { refused: plain(last.slice('refused '.length), 300) };
  // what died before it had the library is no judgement of the file
  if (last === '') return 'unable';
  const what = { load: 'loading it', encode: 'encoding a text', decode: 'decoding ids' }[last] ?? last;
  if (late) return { refused: `${what} takes more than ${limit / 1000} s` };
  const panic = /panicked at [^\n]*\n([^\n]*)/.exec(errors)?.[1] ?? `exit code ${code}`;
  return { refused: `${what} ends the tokenizers library (${plain(panic, 200)})` };
}
