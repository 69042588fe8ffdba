/** Snapshots of states by the ids that led to them: a prompt that begins as one did is read from there on. */
import type { RowPlaces } from '../../generation/decoding_rows.js';
import type { GenerationEngine } from '../../generation/engine.js';
import { nameOf, namesOf } from './prefix_hash.js';
import { SharedState } from './shared_state.js';
import type { StateFolder } from './state_folder.js';
import type { StateCacheMetrics } from './types.js';

/** What a cache may keep. */
export interface CacheRules {
  /** Bytes in memory of the host. */
  readonly host_bytes: number;
  /** Ids from which the end of a prompt that nobody marked is worth a snapshot. */
  readonly prompt_end_tokens: number;
  /** Ids from which a snapshot that has to leave the device goes to the host, and is not dropped. */
  readonly host_tokens: number;
}

/** States that somebody else keeps. */
export interface Pinned {
  /** Those count in memory. */
  readonly held: { entries: number; bytes: number };
  /** One of them goes from the device to the host. @returns whether there was one */
  leaveDevice(): Promise<boolean>;
}

/** Fewer ids are read sooner than their snapshot is found. */
const LEAST = 16;

interface Snapshot {
  readonly ids: Int32Array;
  readonly state: SharedState;
}

export class StateCache {
  /** By the names of their prefixes; the one that was used last is last. */
  private readonly snapshots = new Map<string, Snapshot>();
  private queries = 0;
  private hits = 0;
  private evictions = 0;
  private places: () => RowPlaces | null = () => null;

  /** @param pinned kept states, which count in memory, too */
  constructor(
    private readonly engine: GenerationEngine,
    private readonly rules: CacheRules,
    readonly folder: StateFolder | null,
    private readonly pinned: () => Pinned,
  ) {}

  /** The rows are open: there may be room on their device. */
  over(places: () => RowPlaces | null): void {
    this.places = places;
  }

  /** Bytes of one snapshot. */
  get each(): number {
    return this.engine.state_files?.row_bytes ?? this.engine.memoryFor?.(1) ?? 0;
  }

  /** The state after the longest prefix that has one; whoever asked holds it. */
  async lookup(ids: Int32Array): Promise<{ length: number; state: SharedState } | null> {
    this.queries++;
    const lengths = new Set([...this.snapshots.values()].map((snapshot) => snapshot.ids.length));
    for (const length of (await this.folder?.lengths()) ?? []) lengths.add(length);
    for (const { length, name } of namesOf(ids, lengths)) {
      const state = this.here(name, ids) ?? (await this.fromFolder(name, ids));
      if (!state) continue;
      this.hits++;
      return { length, state };
    }
    return null;
  }

  /** Whether a snapshot after so many ids would be kept. @param lasting the end of an answer, of a message, or what somebody marked */
  wants(length: number, lasting: boolean): boolean {
    if (length < (lasting ? LEAST : Math.max(LEAST, this.rules.prompt_end_tokens))) return false;
    return this.fits || this.places() !== null || this.folder !== null;
  }

  /** Keeps the state after these ids, which it holds from then on. @param lasting see wants() */
  insert(ids: Int32Array, state: SharedState, lasting: boolean): void {
    if (!this.wants(ids.length, lasting)) return;
    const name = nameOf(ids);
    const known = this.here(name, ids);
    known?.release();
    if (known) return;
    this.folder?.write(name, ids, state, lasting);
    this.keep(name, { ids: ids.slice(), state: state.hold() });
  }

  /**
   * Makes room for so many states on the device, as far as that goes: snapshots that were not used for longest leave it, to the host where they
   * are long enough to be worth the copy, else for good.
   */
  async makePlaces(wanted: number): Promise<void> {
    const room = (): boolean => (this.places()?.free ?? Infinity) >= wanted;
    for (const [name, snapshot] of [...this.snapshots]) {
      if (room()) return;
      const { state } = snapshot.state;
      if (!state.on_device || this.snapshots.get(name) !== snapshot) continue;
      if (snapshot.ids.length >= this.rules.host_tokens && this.fits) {
        await state.leaveDevice?.();
        this.makeRoom();
      } else this.drop(name, snapshot);
    }
    while (!room()) if (!(await this.pinned().leaveDevice())) return;
  }

  metrics(): StateCacheMetrics {
    const { folder } = this;
    const pinned = this.pinned().held;
    const places = this.places();
    const there = this.snapshots.size - this.onHost;
    return {
      queries: this.queries,
      hits: this.hits,
      device: places && { entries: there, bytes: there * places.each, budget: places.count * places.each },
      host: {
        entries: this.onHost + pinned.entries,
        bytes: this.onHost * this.each + pinned.bytes,
        budget: this.rules.host_bytes,
      },
      folder: folder && { entries: folder.entries, bytes: folder.bytes, budget: folder.budget },
      evictions: this.evictions + (folder?.evictions ?? 0),
    };
  }

  /** Makes room on the host for so many bytes that must stay, as far as that goes. */
  makeRoom(more = 0): void {
    for (const [name, snapshot] of this.snapshots) {
      if (this.onHost * this.each + this.pinned().held.bytes + more <= this.rules.host_bytes) return;
      if (!this.isThere(snapshot)) this.drop(name, snapshot);
    }
  }

  /** Whether the host's memory has room for one at all. */
  private get fits(): boolean {
    return this.each <= this.rules.host_bytes;
  }

  /** Whether it takes room on a device with memory of its own. */
  private isThere({ state: { state } }: Snapshot): boolean {
    return this.places() !== null && state.on_device === true;
  }

  private get onHost(): number {
    return [...this.snapshots.values()].filter((snapshot) => !this.isThere(snapshot)).length;
  }

  private drop(name: string, { state }: Snapshot): void {
    this.snapshots.delete(name);
    this.evictions++;
    state.release();
  }

  /** Lets go of all; the folder stays, once all is written. */
  async close(): Promise<void> {
    await this.folder?.flush();
    for (const { state } of this.snapshots.values()) state.release();
    this.snapshots.clear();
  }

  private keep(name: string, snapshot: Snapshot): void {
    this.snapshots.get(name)?.state.release();
    this.snapshots.set(name, snapshot);
    this.makeRoom();
  }

  /** Held for whoever asked. */
  private here(name: string, ids: Int32Array): SharedState | null {
    const found = this.snapshots.get(name);
    if (!found || !begins(ids, found.ids)) return null;
    this.snapshots.delete(name);
    this.snapshots.set(name, found);
    return found.state.hold();
  }

  private async fromFolder(name: string, ids: Int32Array): Promise<SharedState | null> {
    if (!this.folder?.has(name)) return null;
    const contents = await this.folder.read(name);
    const own = contents?.ids[0];
    if (!contents || contents.arrays.seen.length !== 1 || !contents.arrays.fed[0] || !own || !begins(ids, own))
      return null;
    const state = new SharedState(await this.engine.fromArrays(contents.arrays));
    this.keep(name, { ids: Int32Array.from(own), state: state.hold() });
    return state;
  }
}

function begins(ids: ArrayLike<number>, prefix: ArrayLike<number>): boolean {
  if (prefix.length > ids.length) return false;
  for (let i = 0; i < prefix.length; i++) if (ids[i] !== prefix[i]) return false;
  return true;
}
