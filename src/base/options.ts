/**
 * Options by name. A table says what an object of options may hold: for each name the kind of value, and what other
 * libraries call it. Functions check their options by their table before they do anything else, so that a misspelt name
 * is an error and never an option that is silently ignored.
 */
import { closestMatch } from 'leven';
import { ArgumentError, type ErrorClass, type Mamba2Error } from './errors.js';
import type { Kind } from './option_kinds.js';
import { plain, quote } from './quote.js';

/** One option: what it takes, and its default where that is one value. */
export interface OptionRule<T = unknown> {
  readonly kind: Kind;
  /** Taken where the option is not given; see OptionTable.fill(). */
  readonly default?: T;
}

/** A rule for every field of O, none left out: the compiler sees to it. */
export type OptionRules<O> = { readonly [K in keyof O]-?: OptionRule<O[K]> };

/** What to say of a name that is no option here. */
export type OtherName =
  /** the name here */
  | string
  /** why there is none; values that mean "off" pass, since they ask for nothing */
  | { readonly why: string; readonly off?: readonly unknown[] };

/** Names of other libraries, or of a library's older versions. */
export type OtherNames = Readonly<Record<string, OtherName>>;

/** An option that has no effect, or cannot be honoured, beside others. */
export interface Clash<O> {
  readonly option: keyof O & string;
  readonly when: (options: Readonly<O>) => boolean;
  /** Completes "NAME is VALUE, …": 'which has no effect with engine 'eager': it computes in float32'. */
  readonly why: string;
}

export interface TableSettings<O> {
  /** Names of other libraries, and the names here. */
  readonly others?: OtherNames;
  readonly clashes?: readonly Clash<O>[];
  /** What is thrown. Default ArgumentError. */
  readonly error?: ErrorClass;
}

const made: OptionTable<object>[] = [];

/** All tables that were made in this process, for tests and for the documentation. */
export function optionTables(): readonly OptionTable<object>[] {
  return made;
}

/**
 * The options of one function, method or constructor.
 * @typeParam O the interface of the options
 * @example
 * const kind = { expected: "'F32' or 'BF16'", ok: (value) => ['F32', 'BF16'].includes(value) };
 * const table = new OptionTable('save()', { dtype: { kind } });
 * table.check({ dtype: 'F32' }); // { dtpye: 'F32' } throws: save() has no option dtpye. Did you mean dtype?
 */
export class OptionTable<O extends object> {
  readonly others: OtherNames;
  private readonly clashes: readonly Clash<O>[];
  private readonly error: ErrorClass;

  /**
   * @param where the function as its callers write it: 'generate()', 'new LoraConfig()'
   * @param rules a rule for every option
   */
  constructor(
    readonly where: string,
    readonly rules: OptionRules<O>,
    { others = {}, clashes = [], error = ArgumentError }: TableSettings<O> = {},
  ) {
    this.others = others;
    this.clashes = clashes;
    this.error = error;
    made.push(this as unknown as OptionTable<object>);
  }

  get names(): readonly string[] {
    return Object.keys(this.rules);
  }

  /**
   * Checks an object of options. A value of `undefined` is an option that is not given; its name must be known all the same.
   * @throws ArgumentError, or the table's own class, naming the option, with { option, got, expected } in its data
   */
  check(options: O | undefined): void {
    if (options === undefined) return;
    this.checkObject(options);
    // names first: a misspelt name often explains the wrong value of another
    for (const [name, value] of Object.entries(options)) this.checkName(name, value);
    for (const [name, value] of Object.entries(options)) this.checkValue(name, value);
    for (const { option, when, why } of this.clashes) {
      if (options[option] !== undefined && when(options))
        throw this.fault(`${option} is ${quote(options[option])}, ${why}.`, option, options[option]);
    }
  }

  /** As check(), and gives the options with the defaults of their rules. */
  fill<K extends keyof O = never>(options: O | undefined): O & Required<Pick<O, K>> {
    this.check(options);
    const filled: Record<string, unknown> = {};
    for (const [name, rule] of Object.entries<OptionRule>(this.rules)) {
      if (rule.default !== undefined) filled[name] = rule.default;
    }
    for (const [name, value] of Object.entries(options ?? {})) if (value !== undefined) filled[name] = value;
    return filled as O & Required<Pick<O, K>>;
  }

  /** Whether this is the name of an option. */
  has(name: string): name is keyof O & string {
    return Object.hasOwn(this.rules, name);
  }

  /** @throws as check(), where options are no object */
  checkObject(options: unknown): void {
    if (typeof options === 'object' && options !== null && !Array.isArray(options)) return;
    throw this.fault(
      `${this.where} got ${quote(options)} where its options belong; expected an object: { ${this.names.slice(0, 3).join(', ')}${this.names.length > 3 ? ', …' : ''} }.`,
      undefined,
      options,
    );
  }

  /** @throws as check(), for a name that is none */
  checkName(name: string, value: unknown): void {
    if (this.has(name)) return;
    const other = Object.hasOwn(this.others, name) ? this.others[name] : undefined;
    if (typeof other === 'object') {
      if (value === undefined || other.off?.includes(value)) return;
      throw this.fault(
        `${this.where} got ${name}: ${quote(value)}, which is not supported: ${other.why}.`,
        name,
        value,
      );
    }
    const [renamed, near] = [other, other === undefined ? this.nearest(name) : undefined];
    const advice = renamed ? ` It is called ${renamed} here.` : near ? ` Did you mean ${near}?` : this.listed();
    throw this.fault(`${this.where} has no option ${plain(name)}.${advice}`, name, value);
  }

  /** @throws as check(), for a value of another kind; names that are none pass */
  checkValue(name: string, value: unknown): void {
    if (value === undefined || !this.has(name)) return;
    const { kind } = this.rules[name];
    if (kind.ok(value)) return;
    throw this.fault(
      `${this.where}: ${name} is ${quote(value)}; expected ${kind.expected}.`,
      name,
      value,
      kind.expected,
    );
  }

  private listed(): string {
    const { names } = this;
    if (names.length === 0) return ' It takes none.';
    return names.length > 12 ? '' : ` It takes ${names.join(', ')}.`;
  }

  /** The option that was probably meant: the same letters in another spelling, else few letters away. */
  private nearest(name: string): string | undefined {
    const letters = (s: string): string => s.toLowerCase().replaceAll(/[^a-z0-9]/g, '');
    const wanted = letters(name);
    const same = this.names.find((each) => letters(each) === wanted);
    if (same !== undefined || wanted.length < 3) return same;
    const known = [
      ...this.names,
      ...Object.entries(this.others).flatMap(([k, v]) => (typeof v === 'string' ? [k] : [])),
    ];
    const close = closestMatch(
      wanted,
      known.map((each) => letters(each)),
      // two, since two letters that changed places are two steps
      { maxDistance: Math.max(wanted.length > 3 ? 2 : 1, Math.floor(wanted.length / 3)) },
    );
    const found =
      known.find((each) => letters(each) === close) ??
      known.find((each) => wanted.length >= 4 && letters(each).includes(wanted));
    return found === undefined || this.has(found) ? found : (this.others[found] as string);
  }

  private fault(message: string, option: string | undefined, got: unknown, expected?: string): Mamba2Error {
    return new this.error(message, { ...(option !== undefined && { option }), got, ...(expected && { expected }) });
  }
}
