/** Snapshots of states by the ids that led to them: a prompt that begins as one did is read from there on. */
import type { GenerationEngine } from '../../generation/engine.js';
import { nameOf, namesOf } from './prefix_hash.js';
import { SharedState } from './shared_state.js';
import type { StateFolder } from './state_folder.js';
import type { StateCacheMetrics } from './types.js';

/** Fewer ids are read sooner than their snapshot is made and found. */
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

  /** @param budget bytes in memory @param pinned bytes of kept states, which count there */
  constructor(
    private readonly engine: GenerationEngine,
    private readonly budget: number,
    readonly folder: StateFolder | null,
    private readonly pinned: () => { entries: number; bytes: number },
  ) {}

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

  /** Whether a snapshot after so many ids would be kept. */
  wants(length: number): boolean {
    return length >= LEAST && (this.each <= this.budget || this.folder !== null);
  }

  /** Keeps the state after these ids, which it holds from then on. @param lasting see StateFolder.write() */
  insert(ids: Int32Array, state: SharedState, lasting: boolean): void {
    if (!this.wants(ids.length)) return;
    const name = nameOf(ids);
    const known = this.here(name, ids);
    known?.release();
    if (known) return;
    this.folder?.write(name, ids, state, lasting);
    this.keep(name, { ids: ids.slice(), state: state.hold() });
  }

  metrics(): StateCacheMetrics {
    const { folder, budget } = this;
    const pinned = this.pinned();
    return {
      queries: this.queries,
      hits: this.hits,
      host: {
        entries: this.snapshots.size + pinned.entries,
        bytes: this.snapshots.size * this.each + pinned.bytes,
        budget,
      },
      folder: folder && { entries: folder.entries, bytes: folder.bytes, budget: folder.budget },
      evictions: this.evictions + (folder?.evictions ?? 0),
    };
  }

  /** Makes room for so many bytes that must stay, as far as that goes. */
  makeRoom(more = 0): void {
    for (const [name, { state }] of this.snapshots) {
      if (this.snapshots.size * this.each + this.pinned().bytes + more <= this.budget) return;
      this.snapshots.delete(name);
      this.evictions++;
      state.release();
    }
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
