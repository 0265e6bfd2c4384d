/** What Prometheus reads, judged by its own tool. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { execaSync } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { type Product, startProduct, until } from './product.js';

let product: Product;
beforeAll(async () => {
  product = await startProduct();
  await product.ready();
});
afterAll(() => product.clean());

const metrics = async () => (await product.fetch('/metrics')).text();
/** The value of one series; null if there is none. */
const seriesOf = (text: string, series: string) => {
  const line = text.split('\n').find((one) => one.startsWith(`${series} `));
  return line === undefined ? null : Number(line.slice(series.length + 1));
};
const has = (program: string) => execaSync('sh', ['-c', `command -v ${program}`], { reject: false }).exitCode === 0;

/** For each of three attempts; the test itself has a longer one. */
const FETCH_LIMIT_MS = 60_000;

/**
 * From the machine, or unpacked from Debian's package, which need not be installed for it; null where it cannot be
 * had.
 */
function promtool(): string | null {
  if (has('promtool')) return 'promtool';
  const folder = temporaryFolder();
  const fetch = () =>
    execaSync('apt-get', ['-o', 'APT::Sandbox::User=root', 'download', 'prometheus'], {
      cwd: folder,
      reject: false,
      timeout: FETCH_LIMIT_MS,
    });
  if (fetch().failed) {
    execaSync('apt-get', ['update'], { reject: false, timeout: FETCH_LIMIT_MS });
    if (fetch().failed) return null;
  }
  execaSync('sh', ['-c', 'dpkg-deb -x prometheus_*.deb .'], { cwd: folder });
  return join(folder, 'usr/bin/promtool');
}

test('count what happened: jobs by how they ended, waits, steps, exits by cause, states, memory, HTTP', async () => {
  const { id } = await product.submit({ prompt: 'a fox', numInferenceSteps: 5 });
  await product.ended(id);
  const cancelled = await product.submit({ prompt: 'a fox', numInferenceSteps: 1000 });
  const text = await until(async () => {
    const now = await metrics();
    return seriesOf(now, 'qwen_supervisor_job_wait_seconds_count') === 2 ? now : null;
  });
  expect(seriesOf(text, 'qwen_supervisor_jobs_ended_total{status="done"}')).toBe(1);
  expect(seriesOf(text, 'qwen_supervisor_jobs{status="running"}')).toBe(1);
  expect(seriesOf(text, 'qwen_supervisor_step_seconds_count')).toBeGreaterThanOrEqual(5);
  expect(seriesOf(text, 'qwen_supervisor_model_load_seconds')).toBeGreaterThan(0);
  expect(seriesOf(text, 'qwen_supervisor_child_state{child="inference",state="busy"}')).toBe(1);
  expect(seriesOf(text, 'qwen_supervisor_child_state{child="inference",state="ready"}')).toBe(0);
  for (const name of ['supervisor', 'inference'])
    expect(seriesOf(text, `qwen_supervisor_process_resident_memory_bytes{process="${name}"}`)).toBeGreaterThan(1e7);
  const posted = 'qwen_supervisor_http_request_duration_seconds_count{method="POST",route="/api/v1/jobs",status="202"}';
  expect(seriesOf(text, posted)).toBe(2);
  await product.call(`/api/v1/jobs/${cancelled.id}/cancel`, '');
  await product.ended(cancelled.id);

  process.kill(await product.pidOf('inference'), 'SIGKILL');
  const exits = 'qwen_supervisor_child_exits_total{child="inference",cause="killed"}';
  await until(async () => (seriesOf(await metrics(), exits) === 1 ? true : null));
  // The API counts its own answers anew; what the supervisor has counted stays.
  process.kill(await product.pidOf('api'), 'SIGKILL');
  await until(async () => {
    const now = await metrics().catch(() => '');
    return seriesOf(now, 'qwen_supervisor_child_exits_total{child="api",cause="killed"}') === 1 ? now : null;
  });
  expect(seriesOf(await metrics(), 'qwen_supervisor_jobs_ended_total{status="cancelled"}')).toBe(1);
});

test('promtool finds nothing to say against them', async ({ skip }) => {
  const tool = promtool();
  if (tool === null) return skip("neither promtool nor Debian's package of it is here");
  await product.fetch('/api/v1/status');
  const checked = execaSync(tool, ['check', 'metrics'], { input: await metrics(), reject: false });
  expect([checked.exitCode, checked.stdout, checked.stderr]).toEqual([0, '', '']);
}, 240_000);

test('the dashboard asks for nothing that there is not', async () => {
  const dashboard = readFileSync(join(REPOSITORY, 'docs/grafana-dashboard.json'), 'utf8');
  const asked = new Set(dashboard.match(/qwen_supervisor_\w+/g));
  const declared = [...(await metrics()).matchAll(/^# TYPE (\w+) (\w+)$/gm)].flatMap(([, name, type]) =>
    type === 'histogram' ? [`${name}_bucket`, `${name}_count`, `${name}_sum`] : [name as string],
  );
  expect([...asked].filter((name) => !declared.includes(name))).toEqual([]);
  expect(
    declared.filter((name) => !/_(sum|count|bucket)$/.test(name) && !asked.has(name)),
    'shown nowhere',
  ).toEqual([]);
});
