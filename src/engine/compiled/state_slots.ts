/** Where the states of a compiled engine lie, and how they come to where they are wanted: through the host only where the device has no room. */
import { inPieces } from '../../base/pieces.js';
import { encodeFloat32 } from '../../base/stored_dtypes.js';
import type { Turns } from '../../base/turns.js';
import { ArgumentError, DisposedError, GenerationError } from '../../base/errors.js';
import type { EngineState, StateArrays } from '../../generation/engine.js';
import type { NetworkWeights } from '../network_weights.js';
import { DeviceState, type StateKeeper } from '../states/device_state.js';
import { type HostState, tensorsOf } from '../states/host_state.js';
import type { Copy, DevicePlaces } from './device_places.js';
import { functions } from './names.js';
import type { StateLayout } from './divided_states.js';
import type { StateVariable } from './program_states.js';
import type { Loaded } from './programs.js';

/** What the slots ask of their engine. */
export interface SlotsOwner {
  readonly weights: NetworkWeights;
  readonly turns: Turns;
  /** How programs hold states. */
  readonly layout: StateLayout;
  /** The program with functions for a batch size, if there is one. */
  of(batch: number): Loaded | undefined;
  /** That program, made where there is none. @throws DisposedError */
  ready(batch: number): Promise<Loaded>;
  /** Disposes of the engine where its weights have changed since. */
  notice(): void;
}

/** Values of one row on the device. */
interface Place {
  readonly area: 'slot' | 'readers' | 'kept';
  readonly at: number;
}

export class StateSlots implements StateKeeper {
  /** Whose state the slot of a batch size holds. */
  private readonly slots = new Map<number, DeviceState>();

  constructor(private readonly owner: SlotsOwner) {}

  create(batch: number, seen?: readonly number[], fed?: readonly boolean[]): DeviceState {
    return new DeviceState(this, batch, seen, fed);
  }

  async toArrays(state: DeviceState, values: HostState | null): Promise<StateArrays> {
    const { seen, fed } = state;
    const tensors = await inPieces(tensorsOf(this.owner.weights.network, fed, values));
    return { seen: [...seen], fed: [...fed], tensors };
  }

  inTurn<T>(work: () => T | Promise<T>): Promise<T> {
    return this.owner.turns.take(work);
  }

  async toHost(state: DeviceState): Promise<HostState> {
    if (!state.onDevice)
      throw new GenerationError('internal: a state that is nowhere cannot be taken to the host', { id: state.id });
    this.owner.notice();
    const loaded = this.owner.of(state.batch);
    if (!loaded)
      throw new DisposedError(
        'This state went with its engine, which was disposed of: with the model, or because its weights changed',
        {},
      );
    // what lies beside others is read from the slot
    if (state.spot) {
      await this.emptySlot(1);
      await this.copyToSlot(loaded, state.spot);
    }
    const parts = await loaded.program.readAll(this.variables(state.batch).map(({ name }) => name));
    return this.owner.layout.whole(parts as HostState, state.batch);
  }

  async placeHeir(state: DeviceState, heir: DeviceState): Promise<boolean> {
    const places = this.places;
    // one that is kept is moved before it changes, and gives its heirs their places then
    if (!places || state.batch !== 1 || heir.batch !== 1 || state.spot?.area === 'kept') return false;
    const [at] = places.freePlaces(1);
    if (at === undefined) return false;
    const { area, at: from } = state.spot ?? { area: 'slot' as const, at: 0 };
    await places.copy(places.nameOf(area), places.nameOf('kept'), [[from, at]]);
    // it may have been disposed of meanwhile
    if (heir.origin?.state !== state) return true;
    places.put(heir, { area: 'kept', at });
    heir.detach();
    return true;
  }

  release(state: DeviceState): void {
    if (state.heirs.size === 0) this.free(state);
  }

  /** Lets go of all: the programs are gone. */
  forget(): void {
    this.slots.clear();
  }

  /** Works on a state of so many rows in its slot: for one that asks within a turn. */
  async settle(state: EngineState, rows: number): Promise<{ own: DeviceState; loaded: Loaded }> {
    const own = this.own(state, rows);
    const loaded = await this.owner.ready(own.batch);
    const { program } = loaded;
    own.alive();
    if (own.origin) await this.resolve(own, loaded);
    own.alive();
    if (!own.resident) {
      await this.emptySlot(own.batch);
      const zeros = loaded.untouched.delete(own.batch);
      if (own.spot) await this.copyToSlot(loaded, own.spot);
      else if (own.onHost) await this.upload(loaded, own);
      else if (!zeros && loaded.places && own.batch === 1) await loaded.places.clear('slot', [0]);
      else if (!zeros && loaded.zeroes) await program.call(functions.zero(own.batch));
      else if (!zeros) await program.zeroAll(this.variables(own.batch).map(({ name }) => name));
      own.alive();
      this.inSlot(own);
    }
    // whoever asked for rows of this state gets them before it moves on
    await own.settleHeirs();
    return { own: own.alive(), loaded };
  }

  /** Where the values of a state of one row are, for who copies them: those of a state on the host are brought into the slot. */
  async locate(state: EngineState): Promise<{ own: DeviceState; place: Place }> {
    const own = this.own(state, 1);
    let at = own;
    while (at.origin?.rows.length === 1 && at.origin.state.batch === 1) at = at.origin.state;
    if (at.spot) return { own, place: at.spot };
    if (!at.resident) await this.settle(own, 1);
    return { own, place: { area: 'slot', at: 0 } };
  }

  /** Whether a state lies in the slot of a size. */
  holds(batch: number): boolean {
    return this.slots.has(batch);
  }

  /** The slot of a size without anything in it: what lay there comes to a place beside, or to the host. */
  async emptySlot(batch: number): Promise<void> {
    const holder = this.slots.get(batch);
    if (holder) await this.evict(holder);
  }

  /** What lies in the slot is this state from here on. */
  inSlot(state: DeviceState): void {
    this.places?.leave(state);
    state.onHost = null;
    state.resident = true;
    this.slots.set(state.batch, state);
  }

  /** All that lies in places of a program comes to the host: the program is about to go. */
  async parkPlaces({ places }: Loaded): Promise<void> {
    for (const state of places?.all() ?? []) await this.toHostAndFree(state);
  }

  /**
   * States of one row, each in a reader, ready to read on; what the readers held besides goes to other places.
   * @returns the reader of each
   */
  async bringToReaders(states: readonly EngineState[], loaded: Loaded): Promise<number[]> {
    const places = loaded.places!;
    const own = states.map((state) => this.own(state, 1));
    const staying = new Set(own);
    await this.keep(places.reading.filter((state) => state !== null && !staying.has(state)) as DeviceState[]);
    for (const state of own) if (state.spot?.area === 'readers') await state.settleHeirs();
    const taken = new Set(places.reading.flatMap((state, at) => (state ? [at] : [])));
    const free = Array.from({ length: places.readers }, (_, at) => at).filter((at) => !taken.has(at));
    const readers = own.map((state) => (state.spot?.area === 'readers' ? state.spot.at : free.shift()!));
    const begun: DeviceState[] = [];
    const waiting: { state: DeviceState; copy: Copy }[] = [];
    const arrive = (state: DeviceState): void => {
      state.alive().detach();
      this.free(state);
      state.onHost = null;
      places.put(state, { area: 'readers', at: readers[own.indexOf(state)]! });
    };
    for (const [i, state] of own.entries()) {
      if (state.spot?.area === 'readers') continue;
      if (!state.onDevice && !state.onHost && !state.origin && state.heirs.size === 0) {
        begun.push(state);
        continue;
      }
      if (state.heirs.size > 0) await this.settle(state, 1); // who asked for it gets it before it moves on
      const { place } = await this.locate(state);
      const copy = [place.at, readers[i]!] as const;
      if (place.area === 'kept') waiting.push({ state, copy });
      else {
        await places.copy(places.nameOf(place.area), places.nameOf('readers'), [copy]);
        arrive(state);
      }
    }
    if (waiting.length > 0) {
      const copies = waiting.map(({ copy }) => copy);
      await places.copy(places.nameOf('kept'), places.nameOf('readers'), copies);
      for (const { state } of waiting) arrive(state);
    }
    if (begun.length > 0) {
      const at = begun.map((state) => readers[own.indexOf(state)]!);
      await places.clear('readers', at);
      begun.forEach(arrive);
    }
    return readers;
  }

  /** Readers or the slot are wanted by others: states go to places for kept ones, and to the host where there are none. */
  private async keep(states: readonly DeviceState[]): Promise<void> {
    const places = this.places!;
    const wanted = states.filter((state) => !state.disposed);
    const at = places.freePlaces(wanted.length);
    const moving = wanted.slice(0, at.length);
    await places.copy(
      places.nameOf('readers'),
      places.nameOf('kept'),
      moving.map((state, i) => [state.spot!.at, at[i]!] as const),
    );
    for (const [i, state] of moving.entries()) if (state.spot) places.put(state, { area: 'kept', at: at[i]! }); // none where it was disposed of meanwhile
    for (const state of wanted.slice(at.length)) await this.toHostAndFree(state);
    for (const state of states)
      if (state.spot?.area === 'readers') {
        await state.settleHeirs();
        this.free(state);
      }
  }

  private get places(): DevicePlaces | null {
    return this.owner.of(1)?.places ?? null;
  }

  private own(state: EngineState, rows: number): DeviceState {
    if (!(state instanceof DeviceState && state.isOf(this))) {
      throw new ArgumentError(
        'This state belongs to another engine: of another model, or of this one before its weights changed',
        { state },
      );
    }
    const own = state.alive();
    if (own.batch !== rows)
      throw new ArgumentError(`The state has ${own.batch} rows, got ${rows}`, { state: own.batch, got: rows });
    return own;
  }

  private variables(batch: number): StateVariable[] {
    return this.owner.layout.variables(batch);
  }

  private free(state: DeviceState): void {
    if (this.slots.get(state.batch) === state) this.slots.delete(state.batch);
    state.resident = false;
    this.places?.leave(state);
    state.spot = null;
  }

  /** Moves a resident state to a place beside, or to the host, or drops it when nobody wants it any more. */
  private async evict(state: DeviceState): Promise<void> {
    if (state.disposed) {
      await state.settleHeirs();
      return this.free(state);
    }
    const places = state.batch === 1 ? this.places : null;
    const [at] = places?.freePlaces(1) ?? [];
    if (!places || at === undefined) return this.toHostAndFree(state);
    await places.copy(places.nameOf('slot'), places.nameOf('kept'), [[0, at]]);
    const gone = state.disposed && state.heirs.size === 0; // meanwhile
    this.free(state);
    if (!gone) places.put(state, { area: 'kept', at });
  }

  private async toHostAndFree(state: DeviceState): Promise<void> {
    if (!state.disposed || state.heirs.size > 0) {
      const values = await this.toHost(state);
      // it may have been disposed of meanwhile
      if (!state.disposed) state.onHost = values;
      for (const heir of [...state.heirs]) heir.inherit(values, state.batch);
    }
    this.free(state);
  }

  private async copyToSlot({ places, untouched }: Loaded, { area, at }: Place): Promise<void> {
    untouched.delete(1);
    await places!.copy(places!.nameOf(area), places!.nameOf('slot'), [[at, 0]]);
  }

  private async upload({ program }: Loaded, own: DeviceState): Promise<void> {
    const onHost = this.owner.layout.parts(own.onHost!, own.batch);
    const bytes = (i: number, narrow: boolean): ArrayBufferView =>
      narrow ? encodeFloat32(onHost[i]!, 'BF16') : onHost[i]!;
    const values = this.variables(own.batch).map(
      ({ name, dtype }, i) => [name, () => bytes(i, dtype === 'bfloat16')] as const,
    );
    await program.assignAll(Object.fromEntries(values));
  }

  /** Works out a selection: on the device where its origin is there, and there is room for both, else through the host. */
  private async resolve(state: DeviceState, loaded: Loaded): Promise<void> {
    const { state: origin, rows } = state.origin!;
    if (origin.origin) {
      await this.resolve(origin, loaded);
      // one that was disposed of meanwhile has left its place in the line to who waits for it
      return state.origin ? this.resolve(state, loaded) : undefined;
    }
    if (origin.resident && origin.disposed && origin.batch === state.batch) {
      await origin.settleHeirs(state);
      await loaded.program.call(functions.select(state.batch), { rows: Int32Array.from(rows) });
      state.detach();
      origin.resident = false;
      this.inSlot(state);
      return;
    }
    if (!origin.onDevice && !origin.onHost) {
      state.detach(); // rows of a state that was never fed: zeros
      return;
    }
    // of one row that stays as it is: a copy of it is the slot's
    if (origin.resident && origin.batch === 1 && state.batch === 1 && (this.places?.free ?? 0) > 0)
      await this.evict(origin);
    const { spot } = origin;
    if (spot && state.batch === 1) {
      await this.emptySlot(1);
      await this.copyToSlot(loaded, spot);
      state.detach();
      this.inSlot(state);
      return;
    }
    await origin.settleHeirs();
    if (origin.disposed) this.free(origin);
  }
}
