/**
 * Metrics in the text format of Prometheus. Reference: "Exposition formats", version 0.0.4. Small enough to be
 * written here: the process that counts should carry nothing heavy.
 */

export type Labels = Record<string, string>;

export const METRICS_CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

export function gauge(name: string, help: string, samples: [Labels, number][]): string {
  return head(name, help, 'gauge') + samples.map(([labels, value]) => sample(name, labels, value)).join('');
}

export class Counter {
  readonly #values = new Map<string, { labels: Labels; value: number }>();

  constructor(
    readonly name: string,
    readonly help: string,
  ) {}

  add(labels: Labels): void {
    const key = series(labels);
    const known = this.#values.get(key) ?? { labels, value: 0 };
    this.#values.set(key, { ...known, value: known.value + 1 });
  }

  text(): string {
    const samples = [...this.#values.values()].map(({ labels, value }) => sample(this.name, labels, value));
    return head(this.name, this.help, 'counter') + samples.join('');
  }
}

export class Histogram {
  readonly #values = new Map<string, { labels: Labels; counts: number[]; sum: number; count: number }>();

  /** `bounds`: the upper ones of the buckets, ascending. */
  constructor(
    readonly name: string,
    readonly help: string,
    readonly bounds: readonly number[],
  ) {}

  observe(labels: Labels, value: number): void {
    const key = series(labels);
    const known = this.#values.get(key) ?? { labels, counts: this.bounds.map(() => 0), sum: 0, count: 0 };
    this.bounds.forEach((bound, i) => {
      if (value <= bound) known.counts[i] = (known.counts[i] as number) + 1;
    });
    this.#values.set(key, { ...known, sum: known.sum + value, count: known.count + 1 });
  }

  text(): string {
    const { name, bounds } = this;
    const lines = [...this.#values.values()].flatMap(({ labels, counts, sum, count }) => [
      ...bounds.map((bound, i) => sample(`${name}_bucket`, { ...labels, le: String(bound) }, counts[i] as number)),
      sample(`${name}_bucket`, { ...labels, le: '+Inf' }, count),
      sample(`${name}_sum`, labels, sum),
      sample(`${name}_count`, labels, count),
    ]);
    return head(name, this.help, 'histogram') + lines.join('');
  }
}

function head(name: string, help: string, type: string): string {
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
}

function sample(name: string, labels: Labels, value: number): string {
  const shown = series(labels);
  return `${name}${shown === '' ? '' : `{${shown}}`} ${value}\n`;
}

function series(labels: Labels): string {
  const quote = (text: string) => text.replace(/[\\"]/g, '\\$&').replaceAll('\n', '\\n');
  return Object.entries(labels)
    .map(([name, value]) => `${name}="${quote(value)}"`)
    .join(',');
}
