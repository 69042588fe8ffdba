/**
 * A folder of states as safetensors, which several servers of one model may share: snapshots by the names of their prefixes, kept states by
 * their ids. Files are written aside and renamed; which model they belong to is checked when one is read.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { saveError } from '../../base/whole_files.js';
import type { StateContents, StateFiles } from '../../generation/engine.js';
import { inspectState, type StateInfo } from '../states/file.js';
import { lengthOf } from './prefix_hash.js';
import { contentsOf, type SharedState } from './shared_state.js';

const ENDING = '.safetensors';
const KEPT = 'kept-';
/** Most snapshots that wait to be written: each holds a state. */
const MOST_WAITING = 16;

export class StateFolder {
  /** Names of the snapshots that were there at the last look, with their bytes. */
  private snapshots = new Map<string, { bytes: number }>();
  /** When the folder had last changed at that look. */
  private seen = -1;
  private writing: Promise<void> | null = null;
  private readonly waiting: { name: string; ids: Int32Array; state: SharedState; lasting: boolean }[] = [];
  evictions = 0;

  /** @param budget bytes of snapshots; kept states do not count */
  constructor(
    readonly folder: string,
    private readonly files: StateFiles,
    readonly budget: number,
  ) {
    try {
      fs.mkdirSync(folder, { recursive: true });
    } catch (error) {
      throw saveError(folder, error);
    }
  }

  get entries(): number {
    return this.snapshots.size;
  }

  get bytes(): number {
    return [...this.snapshots.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Lengths of the prefixes that lie here. */
  async lengths(): Promise<Set<number>> {
    await this.look();
    return new Set([...this.snapshots.keys()].map((name) => lengthOf(name)!));
  }

  has(name: string): boolean {
    return this.snapshots.has(name);
  }

  /** What lies under the name of a prefix; null where it is gone, damaged, or another model's. */
  async read(name: string): Promise<StateContents | null> {
    const file = this.place(name);
    try {
      const contents = await this.files.read(file);
      const now = new Date();
      await fs.promises.utimes(file, now, now).catch(() => undefined);
      return contents;
    } catch {
      this.snapshots.delete(name);
      return null;
    }
  }

  /**
   * Writes the state after these ids when those before it are written. A failure is no one's, and where too many wait one is passed over: the
   * text goes on without it.
   * @param lasting the end of an answer or of a message: passed over last
   */
  write(name: string, ids: Int32Array, state: SharedState, lasting: boolean): void {
    if (this.snapshots.has(name) || this.waiting.some((one) => one.name === name)) return;
    if (this.waiting.length >= MOST_WAITING) {
      const least = this.waiting.findIndex((one) => !one.lasting);
      if (least < 0) return;
      this.waiting.splice(least, 1)[0]!.state.release();
    }
    this.waiting.push({ name, ids, state: state.hold(), lasting });
    this.writing ??= this.writeAll();
  }

  private async writeAll(): Promise<void> {
    for (let next = this.waiting.shift(); next; next = this.waiting.shift()) {
      const { name, ids, state } = next;
      try {
        const file = this.place(name);
        await this.files.write(file, await contentsOf(ids, state));
        this.snapshots.set(name, { bytes: (await fs.promises.stat(file)).size });
        await this.makeRoom();
      } catch {
        // a full disk, a folder that is gone, an engine that is: a cache may miss
      } finally {
        state.release();
      }
    }
    this.writing = null;
  }

  /** When all is written. */
  async flush(): Promise<void> {
    await this.writing;
  }

  async keep(id: string, contents: StateContents): Promise<void> {
    await this.files.write(this.place(KEPT + id), contents);
  }

  /** @returns null where there is none of that id @throws CheckpointError for one that is damaged or of another model */
  async kept(id: string): Promise<StateContents | null> {
    const file = this.place(KEPT + id);
    return fs.existsSync(file) ? this.files.read(file) : null;
  }

  /** What a kept state says of itself, which is little of the file; null where there is none of that id. */
  async about(id: string): Promise<StateInfo | null> {
    const file = this.place(KEPT + id);
    return fs.existsSync(file) ? inspectState(file) : null;
  }

  async keptIds(): Promise<string[]> {
    const names = await fs.promises.readdir(this.folder).catch(() => []);
    return names
      .filter((name) => name.startsWith(KEPT) && name.endsWith(ENDING))
      .map((name) => name.slice(KEPT.length, -ENDING.length));
  }

  async forget(id: string): Promise<boolean> {
    const file = this.place(KEPT + id);
    if (!fs.existsSync(file)) return false;
    await fs.promises.rm(file, { force: true });
    return true;
  }

  private place(name: string): string {
    return path.join(this.folder, name + ENDING);
  }

  /** Looks anew where another server may have written. */
  private async look(): Promise<void> {
    const { mtimeMs } = await fs.promises.stat(this.folder).catch(() => ({ mtimeMs: 0 }));
    if (mtimeMs === this.seen) return;
    this.seen = mtimeMs;
    const found = new Map<string, { bytes: number }>();
    for (const file of await fs.promises.readdir(this.folder).catch(() => [] as string[])) {
      const name = file.endsWith(ENDING) ? file.slice(0, -ENDING.length) : '';
      if (lengthOf(name) === null) continue;
      const known = this.snapshots.get(name);
      const stat = known ? null : await fs.promises.stat(path.join(this.folder, file)).catch(() => null);
      if (known) found.set(name, known);
      else if (stat?.isFile()) found.set(name, { bytes: stat.size });
    }
    this.snapshots = found;
  }

  /** The longest unused go, by the files' own times: other servers use them too. */
  private async makeRoom(): Promise<void> {
    if (this.bytes <= this.budget) return;
    this.seen = -1;
    await this.look();
    const times = await Promise.all(
      [...this.snapshots].map(async ([name, { bytes }]) => {
        const stat = await fs.promises.stat(this.place(name)).catch(() => null);
        return { name, bytes, used: stat?.mtimeMs ?? 0 };
      }),
    );
    let held = this.bytes;
    for (const { name, bytes } of times.sort((a, b) => a.used - b.used)) {
      if (held <= this.budget) return;
      await fs.promises.rm(this.place(name), { force: true });
      this.snapshots.delete(name);
      this.evictions++;
      held -= bytes;
    }
  }
}
