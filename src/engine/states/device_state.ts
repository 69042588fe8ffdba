/**
 * States of the compiled engine. The program has one slot of device variables per batch size; a state is in the slot of its size, in a place for
 * one row beside others (where a scheduler has opened such places), or on the host. Selecting rows of a state that is then disposed happens
 * on the device.
 */
import { DisposedError, GenerationError } from '../../base/errors.js';
import type { EngineState, StateArrays } from '../../generation/engine.js';
import { type HostState, rowsOf } from './host_state.js';

/** A place for the state of one row on the device, beside others. */
export interface Spot {
  /** readers: prompts that are read together; kept: states that wait for whoever goes on with them. */
  readonly area: 'readers' | 'kept';
  readonly at: number;
}

/** What a state asks of the engine that made it. */
export interface StateKeeper {
  /** Copies the variables of a state that is on the device to the host. @throws DisposedError when they went with the engine */
  toHost(state: DeviceState): Promise<HostState>;
  /** Gives an heir of a state on the device a place of its own there, where there is one. @returns whether there was */
  placeHeir(state: DeviceState, heir: DeviceState): Promise<boolean>;
  /** Variables as arrays in the form of every engine; null stands for zeros. */
  toArrays(state: DeviceState, values: HostState | null): Promise<StateArrays>;
  /** Does something with states while no call moves one. */
  inTurn<T>(work: () => T | Promise<T>): Promise<T>;
  /** A state went away. */
  release(state: DeviceState): void;
}

let serial = 0;

export class DeviceState implements EngineState {
  readonly id = serial++;
  seen: number[];
  /** Rows that have logits. */
  fed: boolean[];
  /** Values on the host, when not on the device. Null while it is there, or while `origin` stands. */
  onHost: HostState | null = null;
  /** Where it is on the device, when that is not the slot. */
  spot: Spot | null = null;
  /** Not worked out yet: these rows of that state. */
  origin: { state: DeviceState; rows: readonly number[] } | null = null;
  /** True while the slot of this batch size holds this state. */
  resident = false;
  disposed = false;
  /** States that still want rows of this one. */
  readonly heirs = new Set<DeviceState>();

  constructor(
    private readonly keeper: StateKeeper,
    readonly batch: number,
    seen?: readonly number[],
    fed?: readonly boolean[],
  ) {
    this.seen = seen ? [...seen] : new Array<number>(batch).fill(0);
    this.fed = fed ? [...fed] : new Array<boolean>(batch).fill(false);
  }

  /** @throws DisposedError after dispose() */
  alive(): this {
    if (this.disposed) throw new DisposedError('This generation state was disposed');
    return this;
  }

  /** Whether its own values are on the device. */
  get onDevice(): boolean {
    return this.resident || this.spot !== null;
  }

  /** Whether it is there, or will be where somebody asks for it. */
  get on_device(): boolean {
    return this.onDevice || (this.origin?.state.on_device ?? false);
  }

  /** Whether that engine made it: no other has its values. */
  isOf(keeper: StateKeeper): boolean {
    return this.keeper === keeper;
  }

  async clone(): Promise<DeviceState> {
    return this.select(Array.from({ length: this.batch }, (_, i) => i));
  }

  async select(rows: readonly number[]): Promise<DeviceState> {
    this.alive();
    const bad = rows.find((row) => !Number.isInteger(row) || row < 0 || row >= this.batch);
    if (bad !== undefined || rows.length === 0) {
      throw new GenerationError(`state: cannot select rows [${rows}] of a batch of ${this.batch}`, {
        rows,
        batch: this.batch,
      });
    }
    const chosen = [...rows];
    return this.keeper.inTurn(() => {
      const { seen, fed } = this.alive();
      const pick = <T>(from: readonly T[]): T[] => chosen.map((row) => from[row]!);
      const child = new DeviceState(this.keeper, chosen.length, pick(seen), pick(fed));
      child.descend(this, chosen);
      return child;
    });
  }

  /** Gives the heirs their rows before this state changes or leaves the slot. */
  async settleHeirs(except?: DeviceState): Promise<void> {
    const waiting = (): DeviceState[] => [...this.heirs].filter((heir) => heir !== except);
    if (this.onDevice) for (const heir of waiting()) if (!(await this.keeper.placeHeir(this, heir))) break;
    if (waiting().length === 0) return;
    const values = this.onHost ?? (await this.keeper.toHost(this));
    // those of them that were not disposed of meanwhile
    for (const heir of waiting()) heir.inherit(values, this.batch);
  }

  /** Takes its rows from the values of its origin. */
  inherit(values: HostState, batch: number): void {
    this.onHost = rowsOf(values, batch, this.origin!.rows);
    this.detach();
  }

  async toArrays(): Promise<StateArrays> {
    this.alive();
    return this.keeper.inTurn(async () => {
      const values = await this.alive().values();
      return this.keeper.toArrays(this.alive(), values);
    });
  }

  /** The values, wherever they are; null for a state that was never fed. Moves nothing. */
  private async values(): Promise<HostState | null> {
    if (this.onHost) return this.onHost;
    if (this.onDevice) return this.keeper.toHost(this);
    if (!this.origin) return null;
    const { state, rows } = this.origin;
    const values = await state.values();
    return values && rowsOf(values, state.batch, rows);
  }

  /** Will have these rows of that state, once somebody asks. */
  private descend(state: DeviceState, rows: readonly number[]): void {
    this.origin = { state, rows };
    state.heirs.add(this);
  }

  detach(): void {
    const from = this.origin?.state;
    this.origin = null;
    from?.heirs.delete(this);
    // it stayed for its heirs alone
    if (from?.disposed && from.heirs.size === 0) this.keeper.release(from);
  }

  /** Brings the values to the host, and leaves the device. */
  async leaveDevice(): Promise<void> {
    await this.keeper.inTurn(async () => {
      if (this.disposed || this.onHost) return;
      const values = await this.values();
      if (this.disposed) return;
      this.detach();
      this.onHost = values;
      for (const heir of [...this.heirs]) if (values) heir.inherit(values, this.batch);
      this.keeper.release(this);
    });
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    const { origin } = this;
    if (origin) {
      // a selection that was never worked out has nothing to leave: who waits for rows of it takes them where it would have
      for (const heir of this.heirs)
        heir.descend(
          origin.state,
          heir.origin!.rows.map((row) => origin.rows[row]!),
        );
      this.heirs.clear();
    }
    this.detach();
    this.onHost = this.heirs.size > 0 ? this.onHost : null;
    // while heirs wait, a resident state's values stay in the slot for them
    this.keeper.release(this);
  }
}
