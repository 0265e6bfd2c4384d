import { useLive } from '../../live/store';

export function Charts() {
  const steps = useLive(({ state }) => state?.stepSeconds ?? []);
  const queued = useLive(({ state }) => state?.queuedHistory ?? []);
  return (
    <section className="panel charts" aria-label="Charts">
      <Sparkline name="Seconds of a step" values={steps} digits={2} />
      <Sparkline name="Queued" values={queued.map(({ queued }) => queued)} digits={0} />
      <p className="muted small">Since this page was opened.</p>
    </section>
  );
}

const [WIDTH, HEIGHT] = [240, 48];

/** A line, and what it says in words. */
function Sparkline({ name, values, digits }: { name: string; values: readonly number[]; digits: number }) {
  const last = values.at(-1);
  const most = Math.max(...values, 1e-9);
  const sorted = [...values].sort((a, b) => a - b);
  const median = sorted[sorted.length >> 1];
  const points = values.map((value, i) => {
    const x = values.length === 1 ? 0 : (i / (values.length - 1)) * WIDTH;
    return `${x.toFixed(1)},${(HEIGHT - 2 - (value / most) * (HEIGHT - 4)).toFixed(1)}`;
  });
  const said =
    last === undefined || median === undefined
      ? 'nothing yet'
      : `now ${last.toFixed(digits)}, median ${median.toFixed(digits)}, most ${most.toFixed(digits)}`;
  return (
    <figure>
      <figcaption>
        {name}: <span className="muted">{said}</span>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`${name}: ${said}`}>
        <polyline points={points.join(' ')} />
      </svg>
    </figure>
  );
}
