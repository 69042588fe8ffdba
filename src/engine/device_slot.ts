/** The place on a device where one row is decoded by prepared steps, and whose row is there. */
import type * as tf from '@tensorflow/tfjs';
import { DisposedError } from '../base/errors.js';
import { inPieces } from '../base/pieces.js';
import type { EngineSampling } from '../generation/engine.js';
import type { DeviceSteps } from './recurrent_lm.js';

/** A state that can lie in the slot. */
export interface SlotGuest {
  /** Of the only row, layer by layer. */
  readonly layers: readonly Readonly<Record<string, tf.Tensor>>[];
  /** Scores after its last token; zeros before the first. */
  readonly logits: Float32Array;
  /** Is told that it is in a slot from now on. */
  comeIn(slot: DeviceSlot): void;
  /** Takes back what it is now: new tensors. */
  comeBack(states: Record<string, tf.Tensor>[], logits: tf.Tensor1D): void;
}

/** Tokens of a call: long enough that reading back costs little, short enough that an abort is seen. */
export const DEVICE_BLOCK = 16;

/** Whether steps of a device can choose so. */
export function choosesOnDevice(sampling: EngineSampling): boolean {
  const { do_sample, top_p, min_p, repetition_penalty, typical_p = 1, epsilon_cutoff = 0, eta_cutoff = 0 } = sampling;
  if (repetition_penalty !== 1) return false;
  return !do_sample || (top_p >= 1 && !min_p && typical_p >= 1 && epsilon_cutoff === 0 && eta_cutoff === 0);
}

/** What came of a block. */
export interface Decoded {
  readonly ids: Int32Array;
  readonly fed: number;
  /** Why nothing could be chosen after that: scores are no numbers, or none is left. */
  readonly failed?: 'invalid' | 'none';
}

/** One row at a time is in the slot; the one before goes home when another comes. */
export class DeviceSlot {
  private guest: SlotGuest | null = null;

  constructor(private readonly steps: DeviceSteps) {}

  /** Dispatches of a token, on a GPU. */
  get dispatches(): number | null {
    return this.steps.dispatches ?? null;
  }

  /** Whether tokens can be chosen here, too. */
  get chooses(): boolean {
    return this.steps.decode !== undefined;
  }

  /** To be waited for before anything else. */
  get ready(): Promise<void> {
    return this.steps.ready;
  }

  /** @throws DeviceError where the device is gone */
  check(): void {
    this.steps.check?.();
  }

  has(guest: SlotGuest): boolean {
    return this.guest === guest;
  }

  private admit(guest: SlotGuest): void {
    if (this.has(guest)) return;
    this.sendHome();
    this.steps.load(guest.layers, guest.logits);
    this.guest = guest;
    guest.comeIn(this);
  }

  /** Gives the row that is here back to its state. */
  sendHome(): void {
    const { guest } = this;
    if (!guest) return;
    this.guest = null;
    guest.comeBack(this.steps.states(), this.steps.logits());
  }

  /** Forgets a state that is no more. */
  forget(guest: SlotGuest): void {
    if (this.guest === guest) this.guest = null;
  }

  /** Feeds a token. */
  feed(guest: SlotGuest, token: number): void {
    this.admit(guest);
    this.steps.feed(token);
  }

  /** Whether prompts are read here, too. */
  get reads(): boolean {
    return this.steps.read !== undefined;
  }

  /** Where it reads: feeds a prompt. */
  async read(guest: SlotGuest, ids: Int32Array): Promise<void> {
    this.admit(guest);
    await inPieces(this.steps.read!(ids), {
      alive: () => {
        if (!this.has(guest)) throw new DisposedError('This generation state was disposed');
      },
    });
  }

  /** The scores of the row that is here, as a new tensor. */
  logits(): tf.Tensor1D {
    return this.steps.logits();
  }

  /**
   * Where it chooses: chooses tokens and feeds each, up to the row's end.
   * @param uniforms where tokens are drawn: one for each
   * @returns the ids, padded, how many of them were fed, and what could not be chosen after them
   */
  async decode(guest: SlotGuest, count: number, sampling: EngineSampling, uniforms?: Float32Array): Promise<Decoded> {
    const ids = new Int32Array(count).fill(sampling.pad_token_id);
    let fed = 0;
    for (let at = 0; at < count; at += DEVICE_BLOCK) {
      this.admit(guest);
      const size = Math.min(DEVICE_BLOCK, count - at);
      const chosen = await this.steps.decode!(size, {
        ...(sampling.do_sample && { uniforms: uniforms!.subarray(at, at + size) }),
        ...{ temperature: sampling.temperature, topK: sampling.top_k, removed: sampling.suppress },
        ...{ ends: sampling.eos, pad: sampling.pad_token_id },
      });
      for (const id of chosen) {
        if (id < 0) return { ids, fed, failed: id === -1 ? 'invalid' : 'none' };
        ids[fed++] = id;
        if (sampling.eos.includes(id)) return { ids, fed };
      }
    }
    return { ids, fed };
  }

  /** What is here goes home first. */
  dispose(): void {
    this.sendHome();
    this.steps.dispose();
  }
}
