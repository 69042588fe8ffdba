/** The place on a device where a batch is decoded by prepared steps, and whose rows are there. */
import type * as tf from '@tensorflow/tfjs';
import { DisposedError } from '../base/errors.js';
import { inPieces } from '../base/pieces.js';
import type { EngineSampling } from '../generation/engine.js';
import type { DeviceSteps } from './recurrent_lm.js';

/** A state that can lie in the slot. */
export interface SlotGuest {
  /** Of all rows, layer by layer. */
  readonly layers: readonly Readonly<Record<string, tf.Tensor>>[];
  /** Scores of each row after its last token; zeros before the first. */
  readonly logits: readonly Float32Array[];
  /** Is told that it is in a slot from now on. */
  comeIn(slot: DeviceSlot): void;
  /** Takes back what it is now: new tensors. */
  comeBack(states: Record<string, tf.Tensor>[], logits: tf.Tensor2D): void;
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
  /** Of each row. */
  readonly ids: readonly Int32Array[];
  /** How many of them were fed. */
  readonly fed: number[];
  /** The row for which nothing could be chosen after that, and why: scores are no numbers, or none is left. */
  failed?: { readonly row: number; readonly why: 'invalid' | 'none' };
}

/** What a block begins as: pads, of which none was fed. */
export const noneDecoded = (rows: number, count: number, pad: number): Decoded => ({
  ids: Array.from({ length: rows }, () => new Int32Array(count).fill(pad)),
  fed: new Array<number>(rows).fill(0),
});

/** One state at a time is in the slot; the one before goes home when another comes. */
export class DeviceSlot {
  private guest: SlotGuest | null = null;

  /** @param rows that steps are for */
  constructor(
    private readonly steps: DeviceSteps,
    private readonly rows: number,
  ) {}

  /** Dispatches of a token of each row, on a GPU. */
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

  /** Gives the rows that are here back to their state. */
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

  /** Feeds a token to each row. */
  feed(guest: SlotGuest, tokens: Int32Array): void {
    this.admit(guest);
    this.steps.feed(tokens);
  }

  /** Whether prompts are read here, too. */
  get reads(): boolean {
    return this.steps.read !== undefined;
  }

  /** Where it reads: feeds each row a prompt. */
  async read(guest: SlotGuest, texts: readonly Int32Array[]): Promise<void> {
    this.admit(guest);
    await inPieces(this.steps.read!(texts), {
      alive: () => {
        if (!this.has(guest)) throw new DisposedError('This generation state was disposed');
      },
    });
  }

  /** The scores of the rows that are here, as a new tensor. */
  logits(): tf.Tensor2D {
    return this.steps.logits();
  }

  /**
   * Where it chooses: chooses tokens and feeds each, up to each row's end.
   * @param uniforms where tokens are drawn: one for each, of each row
   * @param finished rows that ended before
   */
  async decode(
    guest: SlotGuest,
    count: number,
    sampling: EngineSampling,
    uniforms?: readonly Float32Array[],
    finished?: readonly boolean[],
  ): Promise<Decoded> {
    const { eos, pad_token_id: pad } = sampling;
    const out = noneDecoded(this.rows, count, pad);
    const ended = Array.from(out.ids, (_, row) => finished?.[row] === true);
    for (let at = 0; at < count && ended.includes(false); at += DEVICE_BLOCK) {
      this.admit(guest);
      const size = Math.min(DEVICE_BLOCK, count - at);
      const chosen = await this.steps.decode!(size, {
        ...(sampling.do_sample && { uniforms: uniforms!.map((numbers) => numbers.subarray(at, at + size)) }),
        ...{ temperature: sampling.temperature, topK: sampling.top_k, removed: sampling.suppress },
        ...{ ends: eos, pad, finished: [...ended] },
      });
      for (const [row, ids] of chosen.entries())
        for (const id of ids) {
          if (ended[row]) break;
          if (id < 0) {
            ended[row] = true;
            out.failed ??= { row, why: id === -1 ? 'invalid' : 'none' };
            break;
          }
          out.ids[row]![out.fed[row]!++] = id;
          ended[row] = eos.includes(id);
        }
      if (out.failed) break;
    }
    return out;
  }

  /** What is here goes home first. */
  dispose(): void {
    this.sendHome();
    this.steps.dispose();
  }
}
