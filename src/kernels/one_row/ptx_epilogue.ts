/** What follows a product of one row in PTX: one thread a row of the matrix. */
import { Epilogue } from '../epilogue/epilogue.js';
import { PtxElements } from '../epilogue/ptx_elements.js';
import type { EpilogueSpec } from '../epilogue/spec.js';
import type { OneRowBlock } from './ptx_block.js';

/** Sums of rows, what is added to them, and what follows: one thread a row. */
export class OneRowEpilogue {
  private readonly sums: string;
  private readonly ready: string | null = null;
  private readonly within: string;
  private readonly place: string;
  private readonly elements: PtxElements;

  constructor(private readonly w: OneRowBlock) {
    const { k, spec } = w;
    this.sums = w.array('sums');
    if (spec.epilogue) this.ready = w.array('ready'); // two numbers a row: see prepare()
    this.within = k.compare('lt.u32', k.thread, w.count);
    this.place = k.int('add.u32', w.base, k.thread);
    this.elements = new PtxElements(k, (name) => w.pointer(name));
  }

  /** Where a warp puts the sum of a row of the block. */
  sum(row: string): string {
    const { k, tiling, split } = this.w;
    return k.place(this.sums, k.int('mad.lo.u32', row, tiling.splitK, split), 4);
  }

  /** What needs no product, on its way before there is any: see EpilogueKnown. Of a channel and of a head it is two numbers. */
  prepare(): void {
    const { k, spec } = this.w;
    if (!spec.epilogue) return;
    const epilogue = new Epilogue(this.elements, spec.epilogue, this.place, this.within);
    const operands = epilogue.operands();
    const { older, newest, dtBias, ALog } = epilogue.known(operands, epilogue.context(epilogue.contextAt('context')));
    const pair = [
      [dtBias, older],
      [ALog, newest],
    ].map(([head, channel]) => this.elements.select(epilogue.head, head!, channel!));
    const to = k.place(this.ready!, k.thread, 8);
    k.when(this.within, () => k.run('st.shared.v2.f32', `[${to}]`, `{${pair.join(', ')}}`));
  }

  /** @param scale what all products are multiplied by */
  finish(scale: string | null): void {
    const { k } = this.w;
    const row = k.int('mov.u32', k.thread);
    const end = k.int('mov.u32', this.w.count);
    k.repeat(() => {
      const within = k.compare('lt.u32', row, end);
      this.row(row, within, scale);
      k.run('add.u32', row, row, this.w.threads);
      // the same for all threads of a warp: where its first one is done
      const lead = k.int('and.b32', row, -32);
      return k.compare('lt.u32', lead, end);
    });
  }

  private row(row: string, within: string, scale: string | null): void {
    const { k, spec, tiling } = this.w;
    const { splitK } = tiling;
    const from = k.place(this.sums, row, 4 * splitK);
    const place = k.int('add.u32', this.w.base, row);
    const terms = k.registers('f', splitK);
    k.when(within, () => terms.forEach((term, i) => k.run('ld.shared.f32', term, `[${from}+${4 * i}]`)));
    let y = terms.reduce((a, b) => k.float('add.f32', a, b));
    if (scale) y = k.float('mul.f32', y, scale);
    if (spec.residual) {
      const added = k.register('f');
      const at = k.address(this.w.pointer('residual'), place, 4);
      k.when(within, () => k.run('ld.global.nc.f32', added, `[${at}]`));
      y = k.float('add.f32', y, added);
    }
    if (spec.epilogue) return this.activate(spec.epilogue, row, place, within, y);
    const to = k.address(this.w.pointer('y'), place, 4);
    k.when(within, () => k.run('st.global.f32', `[${to}]`, y));
  }

  private activate(spec: EpilogueSpec, row: string, place: string, within: string, y: string): void {
    const { k } = this.w;
    const [known, factor] = k.registers('f', 2) as [string, string];
    const from = k.place(this.ready!, row, 8);
    k.when(within, () => k.run('ld.shared.v2.f32', `{${known}, ${factor}}`, `[${from}]`));
    const epilogue = new Epilogue(this.elements, spec, place, within);
    const result = epilogue.finish(y, { older: known, newest: factor, dtBias: known, ALog: factor });
    epilogue.storeBehind(y, result, this.w.spec.out);
  }
}
