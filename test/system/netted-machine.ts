/** A machine of a network with a supervisor on it, whose worker is a fixture and needs no model: see hashing-worker. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { SupervisorMethods } from '@qwen-supervisor/protocol/messages';
import type { SystemStatus } from '@qwen-supervisor/protocol/status';
import { type Client, connect, type Listener } from '@qwen-supervisor/supervisor/cli/client';
import { REPOSITORY } from '../fixture-files.js';
import { firstLink, nextLink, pictureOf, sha256Of } from '../fixtures/children/hashed-picture.mjs';
import type { Machine } from './network.js';
import { until } from './product.js';

const WORKER = join(REPOSITORY, 'test/fixtures/children/hashing-worker.mjs');

export interface Shared {
  /** Of Node. */
  node: string;
  /** Address of the database, as the machine sees it. */
  store: string;
  folder: string;
  /** Where machines keep what is theirs. */
  root: string;
  stepMs: number;
}

type Call = <K extends keyof SupervisorMethods>(
  method: K,
  params: Parameters<SupervisorMethods[K]>[0],
) => Promise<Awaited<ReturnType<SupervisorMethods[K]>>>;

export class NettedMachine {
  readonly net: Machine;
  readonly dataDir: string;
  readonly #shared: Shared;
  #process: ChildProcess | null = null;
  #client: Promise<Client> | null = null;
  /** As of systemd: a supervisor that ends is started again. */
  #isKeptUp = false;
  starts = 0;

  constructor(net: Machine, shared: Shared) {
    this.net = net;
    this.#shared = shared;
    this.dataDir = mkdtempSync(join(shared.root, 'machine-'));
  }

  /** `before`: what it runs under, as faketime is. */
  start({ env = {}, devices = 'cpu' }: { env?: Record<string, string>; devices?: string } = {}): void {
    this.#isKeptUp = true;
    const { node, store, folder, stepMs } = this.#shared;
    const [program = '', ...exec] = this.net.exec;
    const args = ['start', '--port', '0', '--data-dir', this.dataDir, '--store', store, '--shared-folder', folder];
    const child = spawn(
      program,
      [...exec, node, join(REPOSITORY, 'bin/qwen-supervisor.js'), ...args, '--device', devices, '--threads', '1'],
      {
        env: { ...process.env, NODE_OPTIONS: `--import ${WORKER}`, STEP_MS: String(stepMs), ...env },
        stdio: 'ignore',
      },
    );
    this.starts++;
    this.#process = child;
    child.once('exit', () => {
      this.#client = null;
      if (this.#isKeptUp && this.#process === child) this.start({ env, devices });
    });
  }

  /** Of the supervisor. */
  get pid(): number {
    return this.#process?.pid as number;
  }

  /** All at once, as by a power cut: nobody starts anything again. */
  die(): void {
    this.#isKeptUp = false;
    for (const pid of this.net.pids()) process.kill(pid, 'SIGKILL');
  }

  async stop(): Promise<void> {
    this.#isKeptUp = false;
    const child = this.#process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
  }

  /** Asks its supervisor, over its socket, which is a file: no cut is in the way. */
  readonly call: Call = async (method, params) => {
    this.#client ??= connect(this.dataDir);
    const client = await this.#client.catch((error: Error) => {
      this.#client = null;
      throw error;
    });
    return client.link.request(method, params as never) as never;
  };

  listen(on: Listener): Promise<Client> {
    return connect(this.dataDir, on);
  }

  status(): Promise<SystemStatus> {
    return this.call('status', {});
  }

  /** Whether its workers can draw. */
  async ready(): Promise<void> {
    await until(async () => {
      const { children } = await this.status().catch(() => ({ children: [] }));
      const workers = children.filter(({ name }) => name !== 'api');
      return workers.length > 0 && workers.every(({ state }) => state === 'ready' || state === 'busy') ? true : null;
    });
  }

  async submit(count: number, steps: number, prompt: string): Promise<Job[]> {
    const orders = Array.from({ length: count }, (_, seed) => orderOf(prompt, seed, steps));
    // Sent again where the answer was lost, as a client does.
    const idempotency = { key: randomUUID(), fingerprint: prompt };
    return until(() =>
      this.call('submitJobs', { orders, idempotency }).then(
        ({ jobs }) => jobs,
        () => null,
      ),
    );
  }
}

export function orderOf(prompt: string, seed: number, steps: number) {
  const request = {
    prompt,
    negativePrompt: ' ',
    width: 64,
    height: 64,
    numInferenceSteps: steps,
    trueCfgScale: 1,
    seed,
    initImage: null,
    strength: null,
    mask: null,
  };
  return { request, priority: 0, source: 'api' as const, retryOf: null, owner: null };
}

/** SHA-256 of the picture that nobody has disturbed. */
export function twinOf({
  prompt,
  seed,
  numInferenceSteps,
}: Pick<Job, 'prompt' | 'seed' | 'numInferenceSteps'>): string {
  let link = firstLink({ prompt, seed });
  for (let step = 1; step <= numInferenceSteps; step++) link = nextLink(link, step);
  return sha256Of(pictureOf(link));
}
