import { useId } from 'preact/hooks';
import { Fold } from './basic';
import { text } from '../text/en';

interface Props {
  title: string;
  kind: 'bar' | 'line';
  labels: string[];
  series: { name: string; values: number[] }[];
  format?: (n: number) => string;
}

const width = 640, height = 220, left = 48, bottom = 28, top = 12;

/** A chart, and behind it the table that says the same in numbers. */
export function Chart({ title, kind, labels, series, format = (n) => n.toLocaleString() }: Props) {
  const id = useId();
  const most = nice(Math.max(1, ...series.flatMap((s) => s.values)));
  const w = (width - left) / Math.max(1, labels.length), h = height - bottom - top;
  const x = (i: number) => left + w * (i + 0.5), y = (v: number) => top + h - (v / most) * h;
  const each = Math.max(1, Math.ceil(labels.length / 10));
  return (
    <figure class="chart">
      <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-labelledby={id}>
        <title id={id}>{title}</title>
        {[0, 0.5, 1].map((f) => (
          <g key={f}><line class="chart-grid" x1={left} x2={width} y1={y(most * f)} y2={y(most * f)} /><text class="chart-text" x={left - 6} y={y(most * f) + 4} text-anchor="end">{format(most * f)}</text></g>
        ))}
        {labels.map((l, i) => i % each === 0 && <text key={i} class="chart-text" x={x(i)} y={height - 8} text-anchor="middle">{l}</text>)}
        {series.map((s, n) => kind === 'line'
          ? <polyline key={n} class={`chart-line chart-${n}`} points={s.values.map((v, i) => `${x(i)},${y(v)}`).join(' ')} />
          : s.values.map((v, i) => {
            const bw = (w * 0.7) / series.length;
            return <rect key={`${n}-${i}`} class={`chart-bar chart-${n}`} x={x(i) - w * 0.35 + bw * n} width={bw} y={y(v)} height={Math.max(0, top + h - y(v))} rx="2"><title>{`${labels[i]}, ${s.name}: ${format(v)}`}</title></rect>;
          }))}
      </svg>
      {series.length > 1 && <ul class="chart-legend">{series.map((s, n) => <li key={n}><span class={`chart-key chart-${n}`} />{s.name}</li>)}</ul>}
      <Fold summary={text.chart.table}>
        <div class="table-scroll"><table><caption class="hidden">{title}</caption>
          <thead><tr><th scope="col">{text.chart.when}</th>{series.map((s) => <th scope="col" class="numeric" key={s.name}>{s.name}</th>)}</tr></thead>
          <tbody>{labels.map((l, i) => <tr key={i}><th scope="row">{l}</th>{series.map((s) => <td class="numeric" key={s.name}>{format(s.values[i] ?? 0)}</td>)}</tr>)}</tbody>
        </table></div>
      </Fold>
    </figure>
  );
}

/** The next number of the kind 1, 2 or 5 times a power of ten. */
function nice(n: number): number {
  const p = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((f) => f * p).find((f) => f >= n) ?? n;
}
