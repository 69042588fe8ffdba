/**
 * Regular expressions that come from files: matched in a time that grows with the text alone, whatever the expression is (RE2). What RE2
 * does not have, looking around and referring back, is left to the language's own engine with a limit of time.
 */
import { RE2JS } from 're2js';
import { type ErrorClass } from './errors.js';
import { plain } from './quote.js';

/** Longest expression, in characters, and most milliseconds of one that RE2 does not have. */
const LONGEST = 2000;
const LIMIT = 250;

/** What a match says: the named group of it, if there is one of that name. */
interface Found {
  group(name: string): string | undefined;
}

interface Engine {
  find(text: string): Found | null;
}

const compiled = new Map<string, Engine>();

/**
 * A regular expression as Python and JavaScript both write them.
 * @param where what it is, for messages: "LoraConfig: target_modules"
 * @throws Failure for one that is none, or too long
 */
export class Pattern {
  private readonly engine: Engine;

  constructor(
    readonly source: string,
    private readonly where: string,
    private readonly Failure: ErrorClass,
    flags = '',
  ) {
    if (source.length > LONGEST) throw this.fault(`has ${source.length} characters; at most ${LONGEST} are read`);
    const key = `${flags}/${source}`;
    let engine = compiled.get(key);
    if (!engine) {
      engine = this.compile(flags.replace(/[^ims]/g, ''));
      if (compiled.size > 200) compiled.clear();
      compiled.set(key, engine);
    }
    this.engine = engine;
  }

  /** Whether it matches somewhere in the text. @throws Failure when that takes too long */
  test(text: string): boolean {
    return this.find(text) !== null;
  }

  /** Its first match. @throws Failure when that takes too long */
  find(text: string): Found | null {
    try {
      return this.engine.find(text);
    } catch (cause) {
      throw this.fault(`takes more than ${LIMIT} ms for ${plain(text)}: write it without nested repetitions`, cause);
    }
  }

  private compile(flags: string): Engine {
    try {
      const { CASE_INSENSITIVE, MULTILINE, DOTALL } = RE2JS;
      const bits = { i: CASE_INSENSITIVE, m: MULTILINE, s: DOTALL } as Record<string, number>;
      const re2 = RE2JS.compile(
        this.source,
        [...flags].reduce((sum, flag) => sum | bits[flag]!, 0),
      );
      return {
        find: (text) => {
          const matcher = re2.matcher(text);
          return matcher.find() ? { group: (name) => matcher.group(name) ?? undefined } : null;
        },
      };
    } catch (cause) {
      return this.limited(flags, cause);
    }
  }

  /** By the language's own engine, which may take for ever, in a context that can be stopped. */
  private limited(flags: string, cause: unknown): Engine {
    // Python's spelling of names
    const source = this.source.replaceAll('(?P<', '(?<');
    try {
      new RegExp(source, flags);
    } catch (error) {
      throw this.fault(`is not a regular expression: ${plain((error as Error).message, 200)}`, error);
    }
    const vm = globalThis.process?.getBuiltinModule?.('node:vm');
    if (!vm) throw this.fault('looks around or refers back, which is not supported here', cause);
    const script = new vm.Script(
      '(() => { const found = new RegExp(source, flags).exec(text); return found && JSON.stringify(found.groups ?? {}); })()',
    );
    return {
      find: (text) => {
        const groups = script.runInNewContext({ source, flags, text }, { timeout: LIMIT }) as string | null;
        if (groups === null) return null;
        const named = JSON.parse(groups) as Record<string, string>;
        return { group: (name) => named[name] };
      },
    };
  }

  private fault(what: string, cause?: unknown): Error {
    return new this.Failure(
      `${this.where}: '${plain(this.source)}' ${what}.`,
      { pattern: this.source.slice(0, LONGEST) },
      { cause },
    );
  }
}

/** A text with what a regular expression would take for its own signs escaped. */
export function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
