/**
 * Work with tensors in pieces: generators that yield where others may run. What TensorFlow.js keeps in one place for all (open scopes, the tape
 * of gradients) belongs to the work while a piece of it runs, and to everybody else between pieces.
 */
import * as tf from '@tensorflow/tfjs';
import { letOthersRun } from './async.js';

/** Work that gives a T, and yields where the event loop may run in between. */
export type Pieces<T> = Generator<undefined, T, undefined>;

/** Milliseconds that pieces may run on together: a yield before that is passed over. */
export const PIECE_MS = 8;

/** Whether what a function gave is work in pieces. */
export function isPieces(value: unknown): value is Pieces<unknown> {
  return Object.prototype.toString.call(value) === '[object Generator]';
}

/** Does all pieces at once. */
export function atOnce<T>(work: Pieces<T>): T {
  let step = work.next();
  while (!step.done) step = work.next();
  return step.value;
}

/** What tfjs' engine has of scopes and gradients: members of its EngineState, which its types do not name. */
interface EngineState {
  scopeStack: unknown[];
  activeScope: unknown;
  activeTape: unknown;
  gradientDepth: number;
}

/** tfjs' state, which everybody shares. */
export function engineState(): EngineState {
  return (tf.engine() as unknown as { state: EngineState }).state;
}

const taken = ({ scopeStack, activeScope, activeTape, gradientDepth }: EngineState): EngineState => ({
  scopeStack,
  activeScope,
  activeTape,
  gradientDepth,
});

/** Runs a piece of work in surroundings of its own. */
export type Within = <R>(piece: () => R) => R;

/** Scopes and a tape that only what runs within them sees; they outlive a piece. */
export function ownScopes(): Within {
  let own: EngineState = { scopeStack: [], activeScope: null, activeTape: null, gradientDepth: 0 };
  return (piece) => {
    const state = engineState();
    const others = taken(state);
    Object.assign(state, own);
    try {
      return piece();
    } finally {
      own = taken(state);
      Object.assign(state, others);
    }
  };
}

/** How pieces are run. */
export interface PiecesOptions<T> {
  /** Surroundings of the pieces. Default: scopes and a tape of their own. */
  within?: Within;
  /** Tensors of the result, which go on living; all others that were made and not kept are disposed of. Default: none. */
  keeps?: (result: T) => readonly tf.Tensor[];
  /** Asked when others have run; what it throws ends the work. */
  alive?: () => void;
}

/**
 * Does work piece by piece, the event loop running in between. The work is as in a tidy; when it fails, or is ended, its scopes are closed and
 * their tensors disposed of.
 */
export async function inPieces<T>(work: Pieces<T>, options: PiecesOptions<T> = {}): Promise<T> {
  const { within = ownScopes(), keeps = () => [], alive } = options;
  const next = (): IteratorResult<undefined, T> => {
    const began = performance.now();
    let step = work.next();
    while (!step.done && performance.now() - began < PIECE_MS) step = work.next();
    return step;
  };
  let kept: readonly tf.Tensor[] = [];
  try {
    let step = within(() => {
      tf.engine().startScope('pieces');
      return next();
    });
    while (!step.done) {
      await letOthersRun();
      try {
        alive?.();
      } catch (error) {
        step = within(() => work.throw(error));
        continue;
      }
      step = within(next);
    }
    const { value } = step;
    kept = keeps(value);
    return value;
  } finally {
    within(() => {
      while (engineState().scopeStack.length > 0) tf.engine().endScope([...kept]);
    });
  }
}
