/**
 * Sessions of TensorFlow that run on threads of their own (native/session.cc): what programs run in. tfjs-node's addon runs eager ops; its own
 * sessions would stop the event loop, cut messages at 499 bytes and take no configuration.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { type Conversion, useBlocks } from '../base/blocks.js';
import { DeviceError } from '../base/errors.js';
import { requireNear } from '../base/package_files.js';
import { findNodeBackend } from './binding.js';
import { addonPath, NATIVE_VERSION } from './paths.js';

declare const kind: unique symbol;
/** A value of the addon's that JavaScript only hands back. */
interface Held<K> {
  readonly [kind]: K;
}

/** A set of feeds and fetches that was looked up in a session's graph. */
export type PreparedCall = Held<'call'>;
/** A tensor that stays with TensorFlow, to be fed to another call. */
export type KeptTensor = Held<'tensor'>;
/** What is fed: bytes of the place's type in row-major order, copied at once, but for memory of allocate(), which is shared. */
export type FedValue = ArrayBufferView | KeptTensor;

/** A place of the graph that is fed: its name, TensorFlow's number of its type, and its shape; one dimension may be -1, as long as the bytes are. */
export type FeedPlace = readonly [name: string, dtype: number, shape: readonly number[]];

/** What the addon throws and rejects with. */
export interface SessionError extends Error {
  /** TensorFlow's (TF_Code), e.g. 3 for INVALID_ARGUMENT. */
  readonly code: number;
}

type Handle = Held<'session'>;
/** What comes of a call: at once where `wait` is true. */
type Answer<T> = T | Promise<T>;

interface SessionAddon {
  /** See NATIVE_VERSION. */
  readonly version?: number;
  /** @param awake @param patience see waits(), in microseconds */
  create(config: Uint8Array, target: string, awake: number, patience: number): Handle;
  load(session: Handle, graph: Uint8Array, wait: boolean): Answer<unknown>;
  prepare(
    session: Handle,
    feeds: readonly FeedPlace[],
    fetches: readonly string[],
    targets: readonly string[],
  ): PreparedCall;
  run(
    session: Handle,
    call: PreparedCall,
    values: readonly FedValue[],
    keep: boolean,
    wait: boolean,
  ): Answer<(ArrayBuffer | KeptTensor)[]>;
  end(session: Handle): Promise<unknown>;
  close(session: Handle): void;
  abandon(session: Handle): void;
  allocate(bytes: number): ArrayBuffer | null;
  /** native/file_reader.cc: fills a buffer with the bytes of an open file. */
  readInto<T extends object>(file: number, offset: number, buffer: T): Promise<T>;
  /** A tensor of int32 words, to be filled by readInto() and fed. */
  hold(bytes: number): KeptTensor;
  /** native/file_reader.cc: fills a buffer with numbers in another type; null where they do not lie at a multiple of their size. */
  convertInto(numbers: Uint8Array, conversion: Conversion, buffer: ArrayBuffer): Promise<ArrayBuffer> | null;
  /** native/server.cc: TensorFlow's server, until the process ends. */
  serve(definition: Uint8Array, address: string, port: number): void;
  /** native/release_memory.cc */
  releaseMemory(): void;
}

let addon: SessionAddon | null = null;
let folder = '';

/** Loads the addon of a runtime folder, where there is one. TensorFlow is loaded already. */
export function loadSessions(dir: string): void {
  folder = dir;
  const file = path.join(path.dirname(addonPath(dir)), 'session.node');
  if (!fs.existsSync(file)) return;
  const found = requireNear(file) as SessionAddon;
  if (found.version !== NATIVE_VERSION) return;
  addon = found;
  useBlocks(found);
}

/**
 * Gives back, in the background, what loading and compiling have left with the allocator, and takes pages of TensorFlow's libraries out of the
 * process that nobody has changed: loading touches 300 MB of them, for once.
 */
export function releaseMemory(): void {
  addon?.releaseMemory();
}

/**
 * Starts TensorFlow's server, for as long as the process lives. @param definition a ServerDef's bytes @param address an IP address of this machine
 * @throws Error with TensorFlow's message
 */
export function serveTensorFlow(definition: Uint8Array, address: string, port: number): void {
  sessions().serve(definition, address, port);
}

function sessions(): SessionAddon {
  if (addon) return addon;
  throw new DeviceError(
    folder === ''
      ? 'Compiled programs need TensorFlow, and it is not loaded. Call loadTensorFlow() or selectBackend() first.'
      : `The TensorFlow runtime in ${folder} is of another version of this package: compiled programs cannot run in it. ` +
          'Run `npx mamba2 setup --force`, or unset TFJS_MAMBA2_RUNTIME.',
    { dir: folder },
  );
}

/**
 * Memory that a session takes without a copy when it is fed, for weights: it must not be written from then on. Plain memory where the runtime
 * allows no other (Electron), which is copied.
 */
export function allocate(bytes: number): ArrayBuffer {
  return sessions().allocate(bytes) ?? new ArrayBuffer(bytes);
}

/**
 * For how long a session's thread waits awake for the next call, and how long a call may last for which JavaScript waits on the spot: to wake a
 * thread takes some 40 µs, and so does the event loop. On a CPU those who wait take time from those who compute; beside a GPU they do not.
 */
function waits(): [awake: number, patience: number] {
  return findNodeBackend()?.isUsingGpuDevice ? [1000, 2000] : [200, 50];
}

/**
 * One session. Calls are done in the order they come; it takes in its graph with the first call. Errors are TensorFlow's own (SessionError).
 */
export class NativeSession {
  private readonly addon = sessions();
  private readonly handle: Handle;

  /** @param config a ConfigProto's bytes @param target of the session, e.g. `grpc://host:port`; empty for this process */
  constructor(config: Uint8Array = new Uint8Array(0), target = '') {
    this.handle = this.addon.create(config, target, ...waits());
  }

  /** Adds the nodes of a GraphDef. Calls of them may be prepared at once, and given after it. */
  loadSync(graph: Uint8Array): void {
    void this.addon.load(this.handle, graph, true);
  }

  /** As loadSync(), on the session's thread. */
  async load(graph: Uint8Array): Promise<void> {
    await this.addon.load(this.handle, graph, false);
  }

  prepare(feeds: readonly FeedPlace[], fetches: readonly string[], targets: readonly string[] = []): PreparedCall {
    return this.addon.prepare(this.handle, feeds, fetches, targets);
  }

  /** Runs a call on this thread, after those that were given before. */
  runSync(call: PreparedCall, values: readonly FedValue[]): ArrayBuffer[] {
    return this.addon.run(this.handle, call, values, false, true) as ArrayBuffer[];
  }

  /** Runs a call on the session's thread, in its turn. */
  run(call: PreparedCall, values: readonly FedValue[]): Promise<ArrayBuffer[]> {
    return this.addon.run(this.handle, call, values, false, false) as Promise<ArrayBuffer[]>;
  }

  /** As run(), but what was fetched stays with TensorFlow. */
  keep(call: PreparedCall, values: readonly FedValue[]): Promise<KeptTensor[]> {
    return this.addon.run(this.handle, call, values, true, false) as Promise<KeptTensor[]>;
  }

  /** As keep(), on this thread. */
  keepSync(call: PreparedCall, values: readonly FedValue[]): KeptTensor[] {
    return this.addon.run(this.handle, call, values, true, true) as KeptTensor[];
  }

  /** From now on the session is never freed: what it holds is not whole. It still takes calls. */
  abandon(): void {
    this.addon.abandon(this.handle);
  }

  /** Frees what the session has in another process, after all calls before. What is called later fails. */
  async end(): Promise<void> {
    await this.addon.end(this.handle);
  }

  /**
   * Takes no more calls. Those that wait fail; one that runs ends first, and the session goes then. One of another process is left there, but for
   * end(): that process may be gone, and nobody waits for it.
   */
  close(): void {
    this.addon.close(this.handle);
  }
}
