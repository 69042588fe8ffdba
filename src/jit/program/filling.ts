/** How variables get their bytes: asked for ahead, and handed to the session without waiting for each. */
import { begunAhead, UnderWay } from '../../base/ahead.js';
import { dtypeBytes, sizeOf } from '../../runtime/data_types.js';
import type { Bytes, HeldBytes, VariableSpec } from '../types.js';

/** Bytes that are asked for before their turn. */
const AHEAD = 2 ** 27;

/** Bytes on their way into variables. */
const UNDER_WAY = 2 ** 24;

type Given = Bytes | HeldBytes;

/** A variable, wherever it lies. */
export interface Filling {
  readonly spec: Pick<VariableSpec, 'shape' | 'dtype'>;
  readonly bytes: () => Given | Promise<Given>;
  readonly set: (bytes: Given) => Promise<unknown>;
}

/**
 * Fills variables in turn; those of the next ones are asked for while files are read for the first: besides what is handed over, host memory holds one
 * variable, or some of AHEAD bytes together. The event loop is free meanwhile.
 * @param before what the first variable waits for; its bytes, and those after it, are asked for at once
 */
export async function fillInTurn(all: readonly Filling[], before?: Promise<unknown>): Promise<void> {
  const work = all.map(({ spec: { shape, dtype }, bytes }) => ({
    weight: sizeOf(shape) * dtypeBytes(dtype),
    begin: async () => bytes(),
  }));
  const underWay = new UnderWay(UNDER_WAY);
  let at = 0;
  for await (const bytes of begunAhead(work, AHEAD)) {
    const i = at++;
    if (i === 0) await before;
    await underWay.add(work[i]!.weight, all[i]!.set(bytes));
  }
  await underWay.end();
}
