/** The product as a user runs it: the real command line, real processes, a free port, a data folder of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { ChildName, SystemStatus } from '@qwen-supervisor/protocol/status';
import { REPOSITORY } from '../fixture-files.js';

const BIN = join(REPOSITORY, 'bin/qwen-supervisor.js');

export interface CliResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

export function cli(args: string[], env: Record<string, string> = {}): Promise<CliResult> {
  const child = spawn(process.execPath, [BIN, ...args], { env: { ...process.env, ...env } });
  return collect(child);
}

export interface Product {
  url: string;
  dataDir: string;
  process: ChildProcess;
  /** Resolves when the supervisor's process has ended. */
  exited: Promise<CliResult>;
  status(): Promise<SystemStatus>;
  pidOf(name: ChildName): Promise<number>;
  /** JSON of a request, with its HTTP status. */
  call(
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<{ status: number; json: never; headers: Headers }>;
  /** Any other request. */
  fetch(path: string, init?: RequestInit): Promise<Response>;
  submit(request: object): Promise<Job>;
  job(id: string): Promise<Job>;
  /** The job when it has ended. */
  ended(id: string): Promise<Job>;
  ready(): Promise<void>;
  /** Kills everything that is left. */
  clean(): Promise<void>;
}

/** Environment that makes the real worker misbehave: see test/fixtures/children. */
export const NASTY = { NODE_OPTIONS: `--import ${join(REPOSITORY, 'test/fixtures/children/misbehave.mjs')}` };

/** Starts the product; resolves when it serves HTTP, which is before the model is loaded. */
export async function startProduct(
  args: string[] = [],
  dataDir = mkdtempSync(join(tmpdir(), 'qwen-supervisor-test-')),
  env: Record<string, string> = {},
  node = process.execPath,
): Promise<Product> {
  const process_ = spawn(node, [BIN, 'start', '--port', '0', '--data-dir', dataDir, ...args], {
    env: { ...process.env, ...env },
  });
  const exited = collect(process_);
  const url = await new Promise<string>((resolve, reject) => {
    process_.stdout.on('data', (chunk: Buffer) => {
      const match = /listening on (http:\S+?)"/.exec(chunk.toString());
      if (match?.[1]) resolve(match[1]);
    });
    void exited.then(({ stderr }) => reject(new Error(`ended before it listened: ${stderr}`)));
  });
  const call: Product['call'] = async (path, body, headers = {}) => {
    const init =
      body === undefined ? {} : { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) };
    const response = await fetch(url + path, { ...init, headers });
    return { status: response.status, json: (await response.json()) as never, headers: response.headers };
  };
  const product: Product = {
    url,
    dataDir,
    process: process_,
    exited,
    call,
    fetch: (path, init) => fetch(url + path, init),
    status: async () => (await call('/api/v1/status')).json,
    pidOf: async (name) =>
      until(async () => (await product.status()).children.find((child) => child.name === name)?.pid ?? null),
    submit: async (request) => (await call('/api/v1/jobs', request)).json,
    job: async (id) => (await call(`/api/v1/jobs/${id}`)).json,
    ended: (id) =>
      until(async () => {
        const job = await product.job(id);
        return ['done', 'failed', 'cancelled'].includes(job.status) ? job : null;
      }),
    ready: () => until(async () => ((await fetch(`${url}/readyz`)).ok ? true : null)).then(() => {}),
    clean: async () => {
      process_.kill('SIGKILL');
      await exited;
      // The children end by themselves a moment later, and may still write until then.
      await until(async () => {
        try {
          rmSync(dataDir, { recursive: true, force: true });
          return true;
        } catch {
          return null;
        }
      });
    },
  };
  // The API process may still be starting: its socket is bound, but nobody listens yet.
  await until(async () =>
    fetch(`${url}/healthz`).then(
      (response) => (response.ok ? true : null),
      () => null,
    ),
  );
  return product;
}

/** Longer than anything takes, on a machine that is busy with something else. */
const PATIENCE_MS = 120_000;

/** The first value that is not null; asks again and again. */
export async function until<T>(probe: () => Promise<T | null>, patienceMs = PATIENCE_MS): Promise<T> {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const value = await probe();
    if (value !== null) return value;
    if (Date.now() > deadline) throw new Error(`waited for ${patienceMs / 1000} s, and it did not come`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Processes that run with this text in their environment, dead ones that nobody has reaped left out. */
export function processesWith(text: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && isAlive(pid) && environmentOf(pid).includes(text));
}

function environmentOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1');
  } catch {
    return '';
  }
}

/** Whether a process runs; one that is dead but not reaped does not: whoever is process 1 here may never reap. */
export function isAlive(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
}

function collect(child: ChildProcess): Promise<CliResult> {
  let [stdout, stderr] = ['', ''];
  child.stdout?.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    stderr += chunk;
  });
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr })));
}
