/** The GPUs of this machine one by one: memory, and how they reach each other. Loads nothing. */
import { visibleGpus } from './environment.js';
import { type GpuMemory, gpuNames, nvidiaSmi } from './gpu.js';

/** How one GPU reaches another. */
export interface GpuLink {
  /** Index of the other GPU. */
  to: number;
  /** As `nvidia-smi topo -m` writes it: `NV18`, `PIX`, `PXB`, `PHB`, `NODE`, `SYS`. */
  kind: string;
}

export interface GpuCard {
  /** As nvidia-smi counts, which is also the N of `cuda:N` where CUDA_VISIBLE_DEVICES is not set and CUDA_DEVICE_ORDER is PCI_BUS_ID. */
  index: number;
  name: string;
  /** In bytes; null where the driver does not tell. */
  memory: GpuMemory | null;
  links: GpuLink[];
}

/** Every GPU that nvidia-smi lists, in its order; none where it is not there. */
export function gpuCards(): GpuCard[] {
  const list = nvidiaSmi('--query-gpu=index,memory.total,memory.free,name', '--format=csv,noheader,nounits');
  if (list === null) return [];
  const cards = parseCards(list);
  const links = cards.length > 1 ? parseTopology(nvidiaSmi('topo', '-m') ?? '') : new Map<number, GpuLink[]>();
  return cards.map((card) => ({ ...card, links: links.get(card.index) ?? [] }));
}

/**
 * Bytes of each GPU that TensorFlow sees which a model may take, in TensorFlow's order; Infinity where nobody tells.
 * @param ids as CUDA_VISIBLE_DEVICES names them, null where it says nothing @param count of GPUs that the driver knows
 * @param left MiB that TensorFlow leaves to others @param taken whether TensorFlow has taken all memory already
 */
export function roomsOfCards(
  cards: readonly Pick<GpuCard, 'index' | 'memory'>[],
  ids: readonly string[] | null,
  count: number,
  left: number,
  taken: boolean,
): number[] {
  const numbers = ids ?? Array.from({ length: Math.max(count, cards.length, 1) }, (_, i) => String(i));
  return numbers.map((id) => {
    const memory = cards.find(({ index }) => String(index) === id)?.memory;
    return memory ? Math.max(0, (taken ? memory.total : memory.free) - left * 2 ** 20) : Infinity;
  });
}

/** roomsOfCards() of this machine, while TensorFlow is on a GPU. */
export function gpuRooms(): number[] {
  const left = Number(process.env.TF_DEVICE_MIN_SYS_MEMORY_IN_MB) || 0;
  const taken = process.env.TF_FORCE_GPU_ALLOW_GROWTH === 'false';
  return roomsOfCards(gpuCards(), visibleGpus(), gpuNames().length, left, taken);
}

/** @param text lines of `index, total, free, name`, memory in MiB. Lines that are none (notices) are left out. */
export function parseCards(text: string): Omit<GpuCard, 'links'>[] {
  return text.split('\n').flatMap((line) => {
    const [index, total, free, ...name] = line.split(',').map((field) => field.trim());
    if (!/^\d+$/.test(index ?? '') || name.length === 0) return [];
    const [totalMib, freeMib] = [Number(total), Number(free)]; // '[N/A]' of cards that share the host's memory
    const known = Number.isFinite(totalMib) && Number.isFinite(freeMib);
    const memory = known ? { total: totalMib * 2 ** 20, free: freeMib * 2 ** 20 } : null;
    return [{ index: Number(index), name: name.join(', '), memory }];
  });
}

/**
 * Links by GPU, of `nvidia-smi topo -m`: a table whose columns are parted by tabs, with network cards and affinities beside the GPUs.
 * Its heading may be underlined by an escape sequence.
 */
export function parseTopology(text: string): Map<number, GpuLink[]> {
  // eslint-disable-next-line no-control-regex
  const rows = text.replace(/\u001b\[[0-9;]*m/g, '').split('\n').map((line) => line.split('\t').map((cell) => cell.trim())); // prettier-ignore
  const gpu = (cell = ''): number => Number(/^GPU(\d+)$/.exec(cell)?.[1] ?? NaN);
  const heading = rows.find((row) => row[0] === '' && row.some((cell) => !Number.isNaN(gpu(cell))));
  const links = new Map<number, GpuLink[]>();
  if (!heading) return links;
  for (const row of rows) {
    const from = gpu(row[0]);
    if (Number.isNaN(from)) continue;
    const found = heading.flatMap((cell, i) => {
      const kind = row[i] ?? '';
      return Number.isNaN(gpu(cell)) || kind === 'X' || kind === '' ? [] : [{ to: gpu(cell), kind }];
    });
    links.set(from, found);
  }
  return links;
}

/** What the letters of a link mean, as nvidia-smi's legend has it. */
export function linkWords(kind: string): string {
  const bonded = /^NV(\d+)$/.exec(kind);
  if (bonded) return `NVLink (${bonded[1]} links)`;
  const words: Record<string, string> = {
    PIX: 'PCIe, one bridge',
    PXB: 'PCIe, several bridges',
    PHB: 'PCIe, through the CPU',
    NODE: 'PCIe, between host bridges of one NUMA node',
    SYS: 'between NUMA nodes',
  };
  return words[kind] ?? kind;
}
