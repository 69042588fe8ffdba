/** States that somebody keeps by an id. */
import { randomBytes } from 'node:crypto';
import { ArgumentError } from '../../base/errors.js';
import { checkIds } from '../../generation/ids.js';
import type { GenerationEngine, StateArrays, StateContents } from '../../generation/engine.js';
import { StatesFullError, UnknownStateError } from './errors.js';
import { CREATE_TABLE, type CreateOptions, STATE_ID } from './options.js';
import { contentsOf, SharedState } from './shared_state.js';
import type { StateFolder } from './state_folder.js';
import type { KeptState, KeptStates } from './types.js';

interface Entry {
  readonly about: KeptState;
  readonly ids: Int32Array;
  readonly state: SharedState;
}

/** What reads ids: a scheduler. The state is the callee's to release. */
export type ReadIds = (
  input_ids: Int32Array,
  options: CreateOptions,
) => Promise<{ ids: Int32Array; state: SharedState }>;

/** What states in memory are counted against. */
export interface Room {
  /** Bytes of a state. */
  readonly each: number;
  readonly budget: number;
  /** Lets others go for so many bytes, as far as that goes. */
  readonly makeRoom: (more: number) => void;
}

export class StateKeep implements KeptStates {
  /** Those in memory: with a folder none, since other servers may delete them. */
  private readonly entries = new Map<string, Entry>();

  constructor(
    private readonly engine: GenerationEngine,
    private readonly folder: StateFolder | null,
    private readonly read_: ReadIds,
    private readonly room: Room,
  ) {}

  get held(): { entries: number; bytes: number } {
    return { entries: this.entries.size, bytes: this.entries.size * this.room.each };
  }

  /** The one of those on the device that was kept for longest goes to the host. @returns whether there was one */
  async leaveDevice(): Promise<boolean> {
    const there = [...this.entries.values()].find(({ state }) => state.state.on_device);
    await there?.state.state.leaveDevice?.();
    return there !== undefined;
  }

  async create(input_ids: ArrayLike<number>, options: CreateOptions = {}): Promise<KeptState> {
    CREATE_TABLE.check(options);
    checkIds(input_ids, 0, this.engine.vocab_size, 'input_ids');
    const { ids, state } = await this.read_(Int32Array.from(input_ids), options);
    try {
      return await this.keep(ids, state);
    } finally {
      state.release();
    }
  }

  /** Keeps a state, which it holds from then on. @throws StatesFullError */
  async keep(ids: Int32Array, state: SharedState): Promise<KeptState> {
    const about = this.about(ids.length);
    if (this.folder) {
      const contents = await contentsOf(ids, state);
      await this.folder.keep(about.id, { ...contents, extra: { created: String(about.created) } });
      return about;
    }
    this.checkRoom();
    this.entries.set(about.id, { about, ids, state: state.hold() });
    return about;
  }

  /** The state of an id, held for whoever asked. @throws UnknownStateError */
  async open(id: string): Promise<{ ids: Int32Array; state: SharedState }> {
    const entry = this.entries.get(id);
    if (entry) return { ids: entry.ids, state: entry.state.hold() };
    const { arrays, ids } = await this.contents(id);
    return { ids: Int32Array.from(ids[0] ?? []), state: new SharedState(await this.engine.fromArrays(arrays)) };
  }

  async get(id: string): Promise<KeptState | null> {
    if (!STATE_ID.test(id)) return null;
    const entry = this.entries.get(id);
    if (entry) return entry.about;
    const info = await this.folder?.about(id);
    return info ? { id, tokens: info.seen[0]!, bytes: info.bytes, created: Number(info.extra['created'] ?? 0) } : null;
  }

  async list(): Promise<KeptState[]> {
    const found = [...this.entries.values()].map(({ about }) => about);
    for (const id of (await this.folder?.keptIds()) ?? []) {
      const one = await this.get(id).catch(() => null);
      if (one) found.push(one);
    }
    return found;
  }

  async ids(id: string): Promise<number[]> {
    return (await this.read(id)).ids;
  }

  async read(id: string): Promise<{ arrays: StateArrays; ids: number[] }> {
    const entry = this.entries.get(id);
    if (entry) return { arrays: await entry.state.state.toArrays(), ids: Array.from(entry.ids) };
    const { arrays, ids } = await this.contents(id);
    return { arrays, ids: ids[0] ?? [] };
  }

  async add({ arrays, ids }: { arrays: StateArrays; ids: readonly number[] }): Promise<KeptState> {
    checkIds(ids, 0, this.engine.vocab_size, 'ids');
    if (arrays.seen.length !== 1 || !arrays.fed[0])
      throw new ArgumentError(
        `states.add() takes one row that was fed its ids to the end; this state has ${arrays.seen.length}.`,
        { rows: arrays.seen.length },
      );
    const state = new SharedState(await this.engine.fromArrays(arrays));
    try {
      return await this.keep(Int32Array.from(ids), state);
    } finally {
      state.release();
    }
  }

  async fork(id: string): Promise<KeptState> {
    const { ids, state } = await this.open(id);
    try {
      return await this.keep(ids, state);
    } finally {
      state.release();
    }
  }

  async delete(id: string): Promise<boolean> {
    const entry = this.entries.get(id);
    this.entries.delete(id);
    entry?.state.release();
    if (entry) return true;
    return STATE_ID.test(id) && ((await this.folder?.forget(id)) ?? false);
  }

  close(): void {
    for (const { state } of this.entries.values()) state.release();
    this.entries.clear();
  }

  private about(tokens: number): KeptState {
    return { id: `state_${randomBytes(12).toString('hex')}`, tokens, bytes: this.room.each, created: Date.now() };
  }

  private async contents(id: string): Promise<StateContents> {
    const contents = STATE_ID.test(id) ? await this.folder?.kept(id) : null;
    if (contents) return contents;
    throw new UnknownStateError(
      `There is no kept state ${STATE_ID.test(id) ? id : 'of that id'}: it was deleted, or never was.`,
      {
        id,
      },
    );
  }

  private checkRoom(): void {
    const { each, budget, makeRoom } = this.room;
    const bytes = this.held.bytes + each;
    if (bytes > budget) {
      throw new StatesFullError(
        `Kept states take ${this.held.bytes} bytes, and one more would exceed host_bytes (${budget}). Delete some, or give a folder.`,
        { bytes: this.held.bytes, budget },
      );
    }
    makeRoom(each);
  }
}
