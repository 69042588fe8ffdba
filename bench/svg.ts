/** Bar charts as SVG, readable on light and dark pages. */

export interface Bar {
  name: string;
  /** One for each series. */
  values: readonly number[];
  /** A mark across the bars. */
  line: number;
}

const COLORS = ['#2f7ed8', '#9aa0a6'];
const [LEFT, TOP, ROW, HEIGHT, WIDTH] = [130, 56, 40, 13, 760];

const escaped = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;');

/** Groups of horizontal bars, one for each series, with a mark at each group's bound. */
export function barChart(title: string, series: readonly string[], bars: readonly Bar[], mark: string): string {
  const most = 1.1 * Math.max(...bars.flatMap(({ values, line }) => [...values, line]));
  const x = (value: number): number => LEFT + (value / most) * (WIDTH - LEFT - 50);
  const text = (left: number, top: number, content: string, more = ''): string =>
    `<text x="${left.toFixed(1)}" y="${top.toFixed(1)}" ${more}>${escaped(content)}</text>`;
  const legend = [...series.map((name, i) => [name, COLORS[i]!] as const), [mark, '#d9534f'] as const].map(
    ([name, color], i) =>
      `<rect x="${LEFT + 190 * i}" y="30" width="12" height="12" fill="${color}"/>${text(LEFT + 190 * i + 18, 40, name)}`,
  );
  const groups = bars.map(({ name, values, line }, i) => {
    const top = TOP + i * ROW;
    const own = values.map((value, k) => {
      const y = top + k * (HEIGHT + 2);
      const bar = `<rect x="${LEFT}" y="${y}" width="${(x(value) - LEFT).toFixed(1)}" height="${HEIGHT}" fill="${COLORS[k]}"/>`;
      return bar + text(x(value) + 5, y + 11, value.toFixed(1));
    });
    const at = x(line).toFixed(1);
    const bound = `<line x1="${at}" x2="${at}" y1="${top - 3}" y2="${top + 2 * HEIGHT + 5}" stroke="#d9534f" stroke-width="2"/>`;
    return text(LEFT - 8, top + 18, name, 'text-anchor="end"') + own.join('') + bound;
  });
  const height = TOP + bars.length * ROW + 8;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12" fill="#808080">
${text(LEFT, 18, title, 'font-weight="bold"')}
${[...legend, ...groups].join('\n')}
</svg>
`;
}
