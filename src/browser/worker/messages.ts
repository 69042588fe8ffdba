/**
 * What a page and its worker say to each other. Values travel as they are, but for four kinds: functions and objects of classes stay where they are
 * and are named by a number; signals are told when they are aborted, until the calls that they were given to are answered; errors are told as name, message and data.
 */
import * as errors from '../../base/errors.js';

/** A value of one of these kinds, on its way. */
type Told =
  | { readonly $: 'ref'; readonly id: number; readonly call: boolean }
  | { readonly $: 'yours'; readonly id: number }
  | { readonly $: 'signal'; readonly id: number; readonly aborted: unknown }
  | {
      readonly $: 'error';
      readonly name: string;
      readonly message: string;
      readonly data: unknown;
      readonly stack: string;
    };

/** A question, an answer, or something worth knowing. */
export type Message =
  | { kind: 'call' | 'new' | 'get'; id: number; target: number; path: readonly string[]; args: unknown }
  | { kind: 'answer'; id: number; value?: unknown; error?: unknown }
  | { kind: 'abort'; signal: number; reason: unknown }
  | { kind: 'release'; signal: number }
  | { kind: 'forget'; target: number };

/** The two ends of a channel, as a worker and a page's handle of it have them. */
export interface Port {
  postMessage(message: unknown, transfer: Transferable[]): void;
  addEventListener(type: 'message', listener: (event: MessageEvent<Message>) => void): void;
}

/** Where a remote object is known by; its own name is nobody's. */
const ID = Symbol('remote object');

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
};

/** What the browser copies by itself. */
const isCopied = (value: object): boolean =>
  ArrayBuffer.isView(value) ||
  [ArrayBuffer, Date, RegExp, Map, Set, Blob].some((each) => value instanceof each) ||
  (typeof FileList === 'function' && value instanceof FileList);

/** A question that waits for its answer. */
interface Waiting {
  readonly done: (value: unknown) => void;
  readonly failed: (error: Error) => void;
  /** Signals among its arguments. */
  readonly signals: readonly AbortSignal[];
}

/** A signal that the other side knows. */
interface ToldSignal {
  readonly id: number;
  /** Calls that it was given to and that are not answered. */
  calls: number;
  readonly listener: () => void;
}

export class Channel {
  private count = 0;
  private broken: Error | null = null;
  private readonly waiting = new Map<number, Waiting>();
  /** What the other side knows by a number. */
  private readonly kept = new Map<number, unknown>();
  private readonly names = new WeakMap<object, number>();
  private readonly controllers = new Map<number, AbortController>();
  private readonly told = new WeakMap<AbortSignal, ToldSignal>();
  /** Signals of the question that is being encoded. */
  private given: Set<AbortSignal> | null = null;
  private readonly forgotten = new FinalizationRegistry<number>((target) => this.post({ kind: 'forget', target }));

  /** @param root what the other side calls without having been given it */
  constructor(
    private readonly port: Port,
    root?: object,
  ) {
    if (root) this.kept.set(0, root);
    port.addEventListener('message', ({ data }) => void this.take(data));
  }

  /** The other side's root. */
  get root(): unknown {
    return this.remote(0, []);
  }

  /** Every question that waits fails, and all that come. */
  fail(error: Error): void {
    this.broken = error;
    for (const { failed, signals } of this.waiting.values()) {
      signals.forEach((signal) => this.release(signal));
      failed(error);
    }
    this.waiting.clear();
  }

  private post(message: Message, transfer: Transferable[] = []): void {
    this.port.postMessage(message, transfer);
  }

  private async take(message: Message): Promise<void> {
    if (message.kind === 'answer') {
      const waiting = this.waiting.get(message.id);
      this.waiting.delete(message.id);
      // what was made there may heed them still
      if (!refersTo(message.value)) waiting?.signals.forEach((signal) => this.release(signal));
      if ('error' in message) waiting?.failed(this.decode(message.error) as Error);
      else waiting?.done(this.decode(message.value));
    } else if (message.kind === 'abort') {
      this.controllers.get(message.signal)?.abort(this.decode(message.reason));
    } else if (message.kind === 'release') {
      this.controllers.delete(message.signal);
    } else if (message.kind === 'forget') {
      const value = this.kept.get(message.target);
      this.kept.delete(message.target);
      if (typeof value === 'object' && value !== null) this.names.delete(value);
    } else {
      const { id } = message;
      try {
        const value = this.encode(await this.answer(message));
        this.post({ kind: 'answer', id, value }, message.path.at(-1) === 'toArrays' ? buffersOf(value) : []);
      } catch (error) {
        this.post({ kind: 'answer', id, error: this.encode(toError(error)) });
      }
    }
  }

  private answer({ kind, target, path, args }: Extract<Message, { path: readonly string[] }>): unknown {
    if (!this.kept.has(target)) throw new errors.DisposedError('This object of the worker is gone', { target });
    let owner: unknown;
    let value = this.kept.get(target);
    for (const name of path) {
      owner = value;
      value = (value as Record<string, unknown>)[name];
    }
    if (kind === 'get') return value;
    if (typeof value !== 'function')
      throw new errors.ArgumentError(`The worker has no function ${path.join('.') || 'of that name'}.`, { path });
    const given = this.decode(args) as unknown[];
    return kind === 'new'
      ? (Reflect.construct(value, given) as object)
      : (Reflect.apply(value as () => unknown, owner, given) as unknown);
  }

  private ask(
    kind: 'call' | 'new' | 'get',
    target: number,
    path: readonly string[],
    args: unknown[],
  ): Promise<unknown> {
    const id = ++this.count;
    return new Promise((done, failed) => {
      if (this.broken) return void failed(this.broken);
      const given = new Set<AbortSignal>();
      try {
        this.given = given;
        const encoded = this.encode(args);
        this.waiting.set(id, { done, failed, signals: [...given] });
        this.post({ kind, id, target, path, args: encoded });
      } catch (error) {
        this.waiting.delete(id);
        given.forEach((signal) => this.release(signal));
        failed(toError(error));
      } finally {
        this.given = null;
      }
    });
  }

  /** The other side's object: what is asked of it is asked there, and answered with promises. */
  private remote(id: number, path: readonly string[]): unknown {
    return new Proxy(function () {} as unknown as new () => object, {
      get: (_target, name) => {
        if (name === ID) return path.length === 0 ? id : undefined;
        if (typeof name === 'symbol') return undefined;
        if (name !== 'then') return this.remote(id, [...path, name]);
        // an object is awaited as it is; a property of it is fetched
        if (path.length === 0) return undefined;
        const value = this.ask('get', id, path, []);
        return value.then.bind(value);
      },
      apply: (_target, _self, args: unknown[]) => this.ask('call', id, path, args),
      construct: (_target, args: unknown[]) => this.ask('new', id, path, args),
    });
  }

  private keep(value: object): number {
    let id = this.names.get(value);
    if (id === undefined) {
      id = ++this.count;
      this.names.set(value, id);
      this.kept.set(id, value);
    }
    return id;
  }

  private encode(value: unknown): unknown {
    if (typeof value === 'function') {
      const id = (value as { [ID]?: number })[ID];
      if (id !== undefined) return { $: 'yours', id } satisfies Told;
      return { $: 'ref', id: this.keep(value), call: true } satisfies Told;
    }
    if (typeof value !== 'object' || value === null || isCopied(value)) return value;
    if (Array.isArray(value)) return value.map((each) => this.encode(each));
    if (value instanceof AbortSignal) return this.encodeSignal(value);
    if (value instanceof Error || value instanceof DOMException) {
      const { name, message, stack = '' } = value;
      const { data } = value as { data?: unknown };
      return { $: 'error', name, message, data: data === undefined ? undefined : copyable(data), stack } satisfies Told;
    }
    if (isPlain(value))
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.encode(each)]));
    return { $: 'ref', id: this.keep(value), call: false } satisfies Told;
  }

  private encodeSignal(signal: AbortSignal): Told {
    let told = this.told.get(signal);
    if (!told) {
      const id = ++this.count;
      const listener = (): void => this.post({ kind: 'abort', signal: id, reason: this.encode(signal.reason) });
      told = { id, calls: 0, listener };
      this.told.set(signal, told);
      signal.addEventListener('abort', listener, { once: true });
    }
    if (this.given && !this.given.has(signal)) {
      this.given.add(signal);
      told.calls++;
    }
    return { $: 'signal', id: told.id, aborted: signal.aborted ? this.encode(signal.reason) : null };
  }

  /** A call that a signal was given to is answered: of the last one both sides forget it. */
  private release(signal: AbortSignal): void {
    const told = this.told.get(signal);
    if (!told || --told.calls > 0) return;
    signal.removeEventListener('abort', told.listener);
    this.told.delete(signal);
    this.post({ kind: 'release', signal: told.id });
  }

  private decode(value: unknown): unknown {
    if (typeof value !== 'object' || value === null || isCopied(value)) return value;
    if (Array.isArray(value)) return value.map((each) => this.decode(each));
    if (!('$' in value))
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.decode(each)]));
    const told = value as Told;
    switch (told.$) {
      case 'yours':
        return this.kept.get(told.id);
      case 'ref': {
        const remote = this.remote(told.id, []);
        this.forgotten.register(remote as object, told.id);
        return remote;
      }
      case 'signal': {
        const controller = this.controllers.get(told.id) ?? new AbortController();
        this.controllers.set(told.id, controller);
        if (told.aborted !== null) controller.abort(this.decode(told.aborted));
        return controller.signal;
      }
      case 'error':
        return errorOf(told);
    }
  }
}

/** Whether something told names an object of the other side. */
function refersTo(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || isCopied(value)) return false;
  if ('$' in value) return value.$ === 'ref';
  return Object.values(value).some(refersTo);
}

/** What can be copied of the facts of an error. */
function copyable(data: unknown): unknown {
  try {
    return structuredClone(data);
  } catch {
    return undefined;
  }
}

const toError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error))); // prettier-ignore

/** The error of the class that it had, with its data. */
function errorOf({ name, message, data, stack }: Extract<Told, { $: 'error' }>): Error {
  if (name === 'AbortError' || name === 'TimeoutError') return new DOMException(message, name);
  const known = (errors as unknown as Record<string, errors.ErrorClass | undefined>)[name];
  const error = known ? new known(message, (data ?? {}) as errors.ErrorData) : new Error(message);
  if (!known) error.name = name;
  error.stack = stack;
  return error;
}

/** Buffers that are wholly of an answer, which are handed over and not copied. */
function buffersOf(value: unknown, found = new Set<ArrayBuffer>()): ArrayBuffer[] {
  if (ArrayBuffer.isView(value)) {
    if (value.byteLength === value.buffer.byteLength) found.add(value.buffer as ArrayBuffer);
  } else if (typeof value === 'object' && value !== null) {
    for (const each of Object.values(value)) buffersOf(each, found);
  }
  return [...found];
}
