/** A progress bar on standard error, drawn only where somebody watches: a terminal. */

/** Bytes for people: 9.6 MB. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** Draws `label [#####     ]  50 %  1.2 GB of 2.4 GB  310 MB/s`, a few times a second. */
export class ProgressBar {
  private readonly start = performance.now();
  private drawn = -Infinity;

  constructor(
    private readonly label: string,
    private readonly stream: NodeJS.WriteStream = process.stderr,
  ) {}

  update(done: number, total: number): void {
    if (!this.stream.isTTY) return;
    const now = performance.now();
    if (now - this.drawn < 100 && done < total) return;
    this.drawn = now;
    const part = total > 0 ? Math.min(1, done / total) : 1;
    const bar = '#'.repeat(Math.round(part * 30)).padEnd(30);
    const rate = done / Math.max(0.001, (now - this.start) / 1000);
    const percent = String(Math.floor(part * 100)).padStart(3);
    const text = `${this.label} [${bar}] ${percent} %  ${formatBytes(done)} of ${formatBytes(total)}  ${formatBytes(rate)}/s`;
    this.stream.write(`\r${text.slice(0, (this.stream.columns || 120) - 1)}\x1b[K`);
  }

  /** Takes the bar away. */
  end(): void {
    if (this.stream.isTTY && this.drawn > -Infinity) this.stream.write('\r\x1b[K');
  }
}
