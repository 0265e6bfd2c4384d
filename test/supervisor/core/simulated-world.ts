/**
 * A world for the supervisor's core: clock, children, messages and disk are simulated, the job store is the real one in
 * memory. Children crash, hang, load slowly and fail; messages come late or are lost with their connection; the disk is
 * full at times; the supervisor itself is killed and started again. Everything follows from the seed.
 */
import type { Job } from '@qwen-supervisor/protocol/job';
import type { JobRequest } from '@qwen-supervisor/protocol/job-request';
import type { ChildName } from '@qwen-supervisor/protocol/status';
import type { ChildEvent } from '@qwen-supervisor/supervisor/core/child';
import {
  type Effect,
  type Event,
  initialState,
  nextDeadline,
  type State,
  step,
} from '@qwen-supervisor/supervisor/core/supervisor';
import { openDatabase } from '@qwen-supervisor/supervisor/jobs/sqlite-database';
import { sqliteJobStore } from '@qwen-supervisor/supervisor/jobs/sqlite-job-store';
import { expect } from 'vitest';
import { exited } from './child-events.js';

const CHILD = {
  max: 4,
  windowMs: 60_000,
  delayCapMs: 5000,
  stopMs: 1000,
  loadStallMs: 5000,
  loadLimitMs: 20_000,
  beatLimitMs: 3000,
  stepLimitMs: 10_000,
  softBytes: null,
  hardBytes: null,
};
const LIMITS = { inference: CHILD, api: { ...CHILD, delayCapMs: 1000 } };
const STEPS = 5;
/** Prompts that bring the worker down at their second step. */
const POISON = 'poison';

interface Worker {
  incarnation: number;
  phase: 'booting' | 'loading' | 'idle' | 'drawing';
  run: { job: Job; attempt: number; step: number; last: number } | null;
  hung: boolean;
}

/** One database for all worlds: opening one takes longer than most of them live. */
const DATABASE = openDatabase(':memory:');
const STORE = sqliteJobStore(DATABASE);

export class World {
  state: State = initialState();
  now = 0;
  /** Ids of the jobs that were acknowledged. */
  readonly accepted: string[] = [];
  readonly doneTimes = new Map<string, number>();
  worker: Worker | null = null;
  api: number | null = null;
  exits = 0;
  /** Times of the worker's deaths that are held against it, since it was last started anew. */
  #charged: number[] = [];
  /** The most completed steps that anybody was told of, by job. */
  readonly #told = new Map<string, number>();
  readonly store = STORE;
  /** Completed steps that are on the disk, by job. */
  readonly #checkpoints = new Map<string, number>();
  #diskFull = false;
  /** Decided operations, in order, as the job desk keeps them. */
  #operations: (() => Promise<void>)[] = [];
  /** Sent by the worker, not yet received. */
  #messages: Event[] = [];
  #random: number;

  constructor(seed: number) {
    this.#random = seed;
    DATABASE.exec('DELETE FROM jobs');
  }

  /** Mulberry32. */
  random(): number {
    this.#random = (this.#random + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#random ^ (this.#random >>> 15), 1 | this.#random);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  send(event: Event): void {
    const { state, effects } = step(this.state, event, LIMITS);
    this.state = state;
    for (const effect of effects) this.#perform(effect);
  }

  /** A client sends a request; it is acknowledged unless the disk is full. */
  async submit(): Promise<void> {
    if (this.#diskFull) return;
    const prompt = this.random() < 0.1 ? POISON : 'fox';
    const size = { width: 128, height: 128, numInferenceSteps: STEPS, trueCfgScale: 4 };
    const request: JobRequest = { prompt, negativePrompt: ' ', ...size, seed: 1, initImage: null, strength: null };
    const { jobs } = await this.store.put(
      [{ request, priority: Math.floor(this.random() * 3), source: 'api', retryOf: null }],
      null,
      1e6,
    );
    this.accepted.push((jobs[0] as Job).id);
    this.send({ type: 'job-queued', atMs: this.now });
  }

  /** The decided operations reach the store, if the disk takes them. */
  async settleStore(): Promise<void> {
    while (!this.#diskFull && this.#operations.length > 0) await this.#operations.shift()?.();
  }

  /** One thing that could happen now. `calm`: nothing bad does. */
  async happen(calm: boolean): Promise<void> {
    const dice = this.random();
    if (!calm) {
      if (dice < 0.08) await this.submit();
      else if (dice < 0.1) this.die('inference', null, 'SIGSEGV');
      else if (dice < 0.13) this.die('inference', null, 'SIGKILL');
      else if (dice < 0.15) this.die('api', 1, null);
      else if (dice < 0.16) this.#diskFull = !this.#diskFull;
      else if (dice < 0.17) await this.#killSupervisor();
      else if (dice < 0.18 && this.worker) this.worker.hung = true;
      else if (dice < 0.19) await this.#cancelSomething();
      else if (dice < 0.2) this.restartWorker();
      else if (dice < 0.22) this.#sendStray();
      else if (dice < 0.25) this.advance(4000);
      else if (dice < 0.27 && this.worker?.phase === 'loading') this.#failLoad();
      else if (dice < 0.29) await this.#moveSomething();
      else if (dice < 0.32) this.send({ type: 'unload-model', atMs: this.now });
      else if (dice < 0.325) this.send({ type: 'load-model', atMs: this.now });
    } else this.#diskFull = false;
    if (this.random() < 0.8) await this.settleStore();
    this.#work();
    // Messages come in order, some of them late.
    while (this.#messages.length > 0 && this.random() < (calm ? 1 : 0.7)) this.send(this.#messages.shift() as Event);
    this.advance(500);
  }

  restartWorker(): void {
    this.#charged = [];
    this.send({ type: 'restart', atMs: this.now, name: 'inference', reason: 'asked' });
  }

  die(name: ChildName, code: number | null, signal: string | null): void {
    const incarnation = name === 'api' ? this.api : (this.worker?.incarnation ?? null);
    if (incarnation === null) return;
    if (name === 'api') this.api = null;
    else this.worker = null;
    const event: ChildEvent = { ...exited(code, signal), random: this.random() };
    this.send({ type: 'child', name, incarnation, atMs: this.now, event });
  }

  /** Time passes; what is due happens at its time. */
  advance(ms: number): void {
    const end = this.now + ms;
    for (let due = nextDeadline(this.state); due !== null && due <= end; due = nextDeadline(this.state)) {
      this.now = Math.max(this.now, due);
      this.send({ type: 'tick', atMs: this.now });
    }
    this.now = end;
  }

  async jobs(): Promise<Job[]> {
    return (await this.store.list({ status: null, source: null, group: null }, null, 1e6)).jobs;
  }

  /** Whatever has happened, these hold. */
  async check(): Promise<void> {
    const jobs = await this.jobs();
    expect(jobs.length, 'an acknowledged job is gone').toBe(this.accepted.length);
    expect(Math.max(0, ...this.doneTimes.values()), 'a job was completed twice').toBeLessThanOrEqual(1);
    expect(jobs.filter(({ status }) => status === 'running').length, 'two jobs run').toBeLessThanOrEqual(1);
    const { state, deadlineMs } = this.state.children.inference;
    const hasProcess = !['stopped', 'backing-off', 'blocked', 'failed'].includes(state);
    expect(this.worker !== null, `a process in state ${state}`).toBe(hasProcess);
    if (['starting', 'loading', 'stopping', 'backing-off', 'blocked'].includes(state))
      expect(deadlineMs, `nothing will ever happen in state ${state}`).not.toBeNull();
    const charged = this.#charged.filter((at) => at > this.now - CHILD.windowMs).length;
    if (state !== 'failed') expect(charged, 'more restarts than the budget allows').toBeLessThanOrEqual(CHILD.max);
    const { current } = this.state;
    if (current) this.#told.set(current.job.id, Math.max(current.step, this.#told.get(current.job.id) ?? 0));
    for (const job of jobs)
      if (job.status === 'queued')
        expect(job.step, 'the step fell').toBeGreaterThanOrEqual(this.#told.get(job.id) ?? 0);
  }

  #perform(effect: Effect): void {
    switch (effect.type) {
      case 'spawn':
        return this.#spawn(effect.name, effect.incarnation);
      case 'kill':
        return this.die(effect.name, null, 'SIGKILL');
      case 'ask-stop':
        if (effect.name === 'inference' && this.worker?.hung) return;
        return this.random() < 0.8 ? this.die(effect.name, 0, null) : undefined;
      case 'claim':
        return this.#later(async () => this.send({ type: 'claimed', atMs: this.now, job: await this.store.claim() }));
      case 'dispatch':
        expect(this.worker?.run ?? null, 'two jobs in one worker').toBeNull();
        // A message to a process that has just died goes nowhere.
        if (this.worker) Object.assign(this.worker, { phase: 'drawing', run: this.#begin(effect.job, effect.attempt) });
        return;
      case 'begin':
        return this.#later(async () => void (await this.store.begin(effect.jobId, effect.attempt, effect.start)));
      case 'release':
        return this.#later(async () => void (await this.store.release(effect.jobId, effect.death, effect.step)));
      case 'finish':
        return this.#later(async () => {
          const job = await this.store.finish(effect.jobId, effect.attempt, effect.step, effect.outcome);
          if (job?.status === 'done') this.doneTimes.set(job.id, (this.doneTimes.get(job.id) ?? 0) + 1);
        });
      case 'cancel-run': {
        const run = this.worker?.run;
        if (run?.job.id !== effect.jobId) return;
        if (!effect.keep) return this.#finish({ status: 'cancelled' });
        // A picture that is wanted as far as it is ends after the next step.
        run.last = Math.min(run.last, run.step + 1);
        return;
      }
      case 'record-crash': {
        const { child, cause, job } = effect.crash;
        if (cause === 'killed') expect(this.state.children[child].state, 'given up for a kill').not.toBe('failed');
        else if (child === 'inference' && !job) this.#charged.push(this.now);
        return;
      }
      case 'exit':
        this.exits++;
    }
  }

  #spawn(name: ChildName, incarnation: number): void {
    expect(name === 'api' ? this.api : this.worker, 'two processes of one child').toBeNull();
    if (name === 'api') this.api = incarnation;
    else this.worker = { incarnation, phase: 'booting', run: null, hung: false };
    this.send({ type: 'child', name, incarnation, atMs: this.now, event: { type: 'spawned', pid: incarnation } });
  }

  /** A worker goes on from its checkpoint and says so. */
  #begin(job: Job, attempt: number): Worker['run'] {
    const found = this.#checkpoints.get(job.id) ?? 0;
    expect(found, 'a step that was told is lost').toBeGreaterThanOrEqual(job.step);
    const { incarnation } = this.worker as Worker;
    const begun = { incarnation, atMs: this.now, jobId: job.id, attempt, step: found, startedOverReason: null };
    this.#messages.push({ type: 'job-begun', ...begun });
    return { job, attempt, step: found, last: STEPS };
  }

  /** The processes do what they do in half a second. */
  #work(): void {
    if (this.api !== null && this.state.children.api.state === 'starting') {
      const event: ChildEvent = { type: 'ready', msPerToken: 0 };
      this.send({ type: 'child', name: 'api', incarnation: this.api, atMs: this.now, event });
    }
    if (this.api !== null) this.#beat('api', this.api, 0);
    const { worker } = this;
    if (!worker || worker.hung) return;
    const { incarnation } = worker;
    this.#beat('inference', incarnation, worker.run?.step ?? 0);
    if (worker.phase === 'booting') {
      worker.phase = 'loading';
      this.send({ type: 'child', name: 'inference', incarnation, atMs: this.now, event: { type: 'connected' } });
    } else if (worker.phase === 'loading') {
      if (this.random() < 0.5) return;
      worker.phase = 'idle';
      this.#messages.push({ type: 'loaded', incarnation, atMs: this.now, seconds: 1, msPerToken: 1 });
    } else if (worker.run) {
      const { run } = worker;
      const { job, attempt } = run;
      if (run.step === run.last)
        return this.#finish({ status: 'done', step: run.step, imageId: job.id, file: '', sha256: '', bytes: 1 });
      run.step++;
      this.#checkpoints.set(job.id, run.step);
      this.#messages.push({ type: 'job-step', incarnation, atMs: this.now, jobId: job.id, attempt, step: run.step });
      if (job.prompt === POISON && run.step >= 2) this.die('inference', null, 'SIGABRT');
    }
  }

  #finish(outcome: Extract<Event, { type: 'job-finished' }>['outcome']): void {
    const { run, incarnation } = this.worker as Worker;
    if (!run) return;
    this.#messages.push({
      type: 'job-finished',
      incarnation,
      atMs: this.now,
      jobId: run.job.id,
      attempt: run.attempt,
      outcome,
    });
    Object.assign(this.worker as Worker, { run: null, phase: 'idle' });
  }

  #beat(name: ChildName, incarnation: number, completed: number): void {
    const vitals = { rssBytes: this.now * 1e4, readBytes: this.now, cpuSeconds: this.now / 1000, step: completed };
    this.send({ type: 'child', name, incarnation, atMs: this.now, event: { type: 'beat', vitals } });
  }

  #failLoad(): void {
    const { incarnation } = this.worker as Worker;
    const error = { code: 'MODEL_LOAD_FAILED', message: '', hint: '' } as const;
    const event: ChildEvent = { type: 'fatal', error, permanent: this.random() < 0.1 };
    this.send({ type: 'child', name: 'inference', incarnation, atMs: this.now, event });
    this.die('inference', 87, null);
  }

  /** Everything but the store and the disk is gone; the next supervisor finds those. */
  async #killSupervisor(): Promise<void> {
    Object.assign(this, { worker: null, api: null, state: initialState() });
    this.#charged = [];
    this.#operations = [];
    this.#messages = [];
    this.#diskFull = false;
    await this.store.recover((id) => this.#checkpoints.get(id) ?? 0);
    this.send({ type: 'start', atMs: this.now });
    this.send({ type: 'job-queued', atMs: this.now });
  }

  async #cancelSomething(): Promise<void> {
    const id = this.accepted[Math.floor(this.random() * this.accepted.length)];
    if (id === undefined) return;
    this.#later(async () => {
      await this.store.cancel(id);
      this.send({ type: 'cancel-running', atMs: this.now, jobId: id, keep: this.random() < 0.5 });
    });
  }

  /** A queued job gets another place; all others keep theirs among themselves. */
  async #moveSomething(): Promise<void> {
    const before = (await this.store.waiting(1e6)).map(({ id }) => id);
    const [moved, other] = [0, 1].map(() => before[Math.floor(this.random() * before.length)]);
    if (moved === undefined || other === undefined || moved === other) return;
    await this.store.move(moved, this.random() < 0.5 ? { before: other } : { priority: Math.floor(this.random() * 3) });
    const after = (await this.store.waiting(1e6)).map(({ id }) => id);
    const others = (ids: string[]) => ids.filter((id) => id !== moved);
    expect(others(after), 'a move has moved others').toEqual(others(before));
  }

  /** Messages of processes that are gone, and of runs that are over. */
  #sendStray(): void {
    const incarnation = this.state.children.inference.incarnation - (this.random() < 0.5 ? 1 : 0);
    const jobId = this.accepted[0] ?? 'none';
    const stray = { incarnation, atMs: this.now, jobId, attempt: 0 };
    this.send({ type: 'job-step', ...stray, step: 1 });
    this.send({ type: 'job-finished', ...stray, outcome: { status: 'cancelled' } });
    const gone = { name: 'inference' as const, incarnation: incarnation - 1, atMs: this.now };
    this.send({ type: 'child', ...gone, event: exited(1, null) });
  }

  #later(operation: () => Promise<void>): void {
    this.#operations.push(operation);
  }
}
