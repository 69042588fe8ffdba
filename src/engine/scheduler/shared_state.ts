/** A state that several look at and none advances: it goes when the last lets go of it. */
import type { EngineState, StateContents } from '../../generation/engine.js';

export class SharedState {
  private holders = 1;

  /** @param state becomes this one's to dispose of; held once */
  constructor(readonly state: EngineState) {}

  hold(): this {
    this.holders++;
    return this;
  }

  release(): void {
    if (--this.holders === 0) this.state.dispose();
  }
}

/** What a file of the state after these ids holds. */
export async function contentsOf(ids: ArrayLike<number>, { state }: SharedState): Promise<StateContents> {
  return { arrays: await state.toArrays(), ids: [Array.from(ids)], extra: {} };
}
