/** First calls of what moves states between places, and reads prompts in them: XLA compiles it then, and no request waits for that. */
import type { Copy, DevicePlaces } from './device_places.js';
import { functions, places } from './names.js';
import type { Loaded } from './programs.js';

/** Copies between rows, the slot of one row and other places. Of no use where anything is in them: it would be lost. @param rows name of rows that are free */
export async function warmCopies({ program, places: own, rows: about }: Loaded, rows: string): Promise<void> {
  const slot = places.slot(1);
  for (const name of [functions.copy(slot, rows), functions.copy(rows, slot)])
    await program.call(name, { from: 0, to: 0 });
  if (!own || own.all().length > 0) return;
  const { readers, kept } = about!;
  if (readers > 0) await warmCopy(own, own.nameOf('readers'), rows);
  if (kept > 0) {
    await warmCopy(own, own.nameOf('kept'), rows);
    await warmCopy(own, rows, own.nameOf('kept'));
  }
}

/** Copies among the other places, and reading in them; not where anything is there. */
export async function warmReaders({ program, places: own, rows }: Loaded): Promise<void> {
  if (!own || own.all().length > 0) return;
  const { readers: r, readerSegments, kept } = rows!;
  const slot = places.slot(1);
  const areas = [...(r > 0 ? [own.nameOf('readers')] : []), ...(kept > 0 ? [own.nameOf('kept')] : [])];
  for (const area of areas) {
    await own.copy(slot, area, [[0, 0]]);
    await own.copy(area, slot, [[0, 0]]);
    for (const other of areas) if (other !== area) await warmCopy(own, area, other);
  }
  for (const t of readerSegments) {
    const [ids, mask, ends] = [new Int32Array(r * t), new Float32Array(r * t), new Float32Array(r * t)]; // [r, t]
    await program.call(functions.prefillOf(places.readers(r), t), { ids, mask, ends }, ['fed']);
  }
  if (r > 0) await own.clear('readers', []);
  await own.clear('slot', [0]);
}

/** The copy of one row, and where there are readers that of many. */
async function warmCopy(own: DevicePlaces, from: string, to: string): Promise<void> {
  await own.copy(from, to, [[0, 0]]);
  if (own.readers > 1) await own.copy(from, to, new Array<Copy>(own.readers).fill([0, 0]));
}
