/**
 * A world for the supervisor's core: clock, children, messages and disk are simulated, the job store is the real one in
 * memory. What can happen in it, and how fast its processes are, is drawn from the seed (swarm.ts).
 */
import type { Job } from '@qwen-supervisor/protocol/job';
import { type ChildName, type WorkerName, workerNames } from '@qwen-supervisor/protocol/status';
import type { ChildEvent } from '@qwen-supervisor/supervisor/core/child';
import type { Effect, Event } from '@qwen-supervisor/supervisor/core/events';
import { initialState, type Limits, nextDeadline, type State, workerOf } from '@qwen-supervisor/supervisor/core/state';
import { decide } from '@qwen-supervisor/supervisor/core/supervisor';
import { openDatabase } from '@qwen-supervisor/supervisor/jobs/sqlite-database';
import { sqliteJobStore } from '@qwen-supervisor/supervisor/jobs/sqlite-job-store';
import { expect } from 'vitest';
import { exited } from './child-events.js';
import { strike } from './faults.js';
import { checkKill } from './promises.js';
import { submit } from './simulated-clients.js';
import { finish, nextStepMs, type Worker, work } from './simulated-worker.js';
import { drawWorld, type Fault, SIDES, type WorldOptions } from './swarm.js';

/** One database for all worlds: opening one takes longer than most of them live. */
const DATABASE = openDatabase(':memory:');
const STORE = sqliteJobStore(DATABASE);

export class World {
  readonly options: WorldOptions;
  readonly names: WorkerName[];
  state: State;
  now = 0;
  /** Ids of the jobs that were acknowledged. */
  readonly accepted: string[] = [];
  readonly doneTimes = new Map<string, number>();
  readonly workers = new Map<WorkerName, Worker>();
  api: number | null = null;
  exits = 0;
  /** What happened last, for the report of a failure. */
  readonly story: string[] = [];
  /** Times of a worker's deaths that are held against it, since it was last started anew. */
  readonly charged = new Map<WorkerName, number[]>();
  /** The most completed steps that anybody was told of, by job. */
  readonly told = new Map<string, number>();
  readonly store = STORE;
  /** Completed steps that are on the disk, by job. */
  readonly checkpoints = new Map<string, number>();
  /** The incarnation of the API that has said that it serves. */
  #servesFrom: number | null = null;
  diskFull = false;
  /** Decided operations, in order, as the job desk keeps them. */
  #operations: (() => Promise<void>)[] = [];
  /** Received, not yet decided. */
  readonly #inbox: Event[] = [];
  /** Sent by a child, not yet received. */
  messages: Event[] = [];
  #random: number;

  constructor(seed: number) {
    this.#random = seed;
    this.options = drawWorld(() => this.random());
    this.names = workerNames(this.options.workers);
    this.state = initialState(this.names);
    DATABASE.exec('DELETE FROM jobs');
  }

  /** Mulberry32. */
  random(): number {
    this.#random = (this.#random + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#random ^ (this.#random >>> 15), 1 | this.#random);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  get #limits(): Limits {
    const { limits, onStop } = this.options;
    const api = { ...limits, max: null, delayCapMs: 1000, softBytes: null, hardBytes: null };
    return { api, workers: Object.fromEntries(this.names.map((name) => [name, limits])), onStop };
  }

  child(name: WorkerName) {
    return workerOf(this.state, name).child;
  }

  /** Any of the workers' processes. */
  someWorker(): Worker | undefined {
    return [...this.workers.values()][Math.floor(this.random() * this.workers.size)];
  }

  /** A large picture is left to the first while that is not given up. */
  takerFor(name: WorkerName) {
    const [first] = this.names as [WorkerName];
    const leaves = this.options.onlyFirstDrawsLarge && name !== first && this.child(first).phase !== 'failed';
    return { maxPixels: leaves ? SIDES[0] ** 2 : null, leaves: [] };
  }

  /** As the daemon does it: one event after the other. */
  send(event: Event): void {
    this.#inbox.push(event);
    if (this.#inbox.length > 1) return;
    for (let next: Event | undefined = event; next; next = this.#inbox[0]) {
      this.#handle(next);
      this.#inbox.shift();
    }
  }

  #handle(event: Event): void {
    const { state, effects } = decide(this.state, event, this.#limits);
    this.state = state;
    for (const effect of effects) this.#perform(effect);
  }

  start(): void {
    this.send({ type: 'start', atMs: this.now });
    this.send({ type: 'job-queued', atMs: this.now });
  }

  /** The decided operations reach the store, if the disk takes them. */
  async settleStore(): Promise<void> {
    while (!this.diskFull && this.#operations.length > 0) await this.#operations.shift()?.();
  }

  /** One moment. `calm`: nothing bad happens. */
  async happen(calm: boolean): Promise<void> {
    if (calm) this.diskFull = false;
    else {
      if (this.random() < 0.08) await submit(this);
      for (const [fault, probability] of Object.entries(this.options.faults))
        if (probability > 0 && this.random() < probability) await strike(this, fault as Fault);
    }
    if (this.exits > 0 && !calm) return this.startSupervisor();
    if (this.random() < 0.8) await this.settleStore();
    this.work(this.options.quantumMs);
    // Messages come in order, some of them a moment late, and in some worlds some of them not at all.
    const isOverdue = () => (this.messages[0] as Event).atMs < this.now;
    while (this.messages.length > 0 && (calm || isOverdue() || this.random() >= this.options.late)) this.receive(calm);
    this.advance(this.options.quantumMs);
  }

  receive(calm: boolean): void {
    const message = this.messages.shift() as Event;
    if (calm || this.random() >= this.options.lost) this.send({ ...message, atMs: this.now });
  }

  restartWorker(name: WorkerName): void {
    this.charged.delete(name);
    this.send({ type: 'restart', atMs: this.now, name, reason: 'asked' });
  }

  #incarnationOf(name: ChildName): number | null {
    return name === 'api' ? this.api : (this.workers.get(name)?.incarnation ?? null);
  }

  die(name: ChildName, code: number | null, signal: string | null, oomKilled = false): void {
    const incarnation = this.#incarnationOf(name);
    if (incarnation === null) return;
    // What a child has sent is received before its exit is.
    while (this.messages.length > 0) this.receive(false);
    // One of them may have been the end of it.
    if (incarnation !== this.#incarnationOf(name)) return;
    if (name === 'api') this.api = null;
    else this.workers.delete(name);
    const event: ChildEvent = { ...exited(code, signal, oomKilled), random: this.random() };
    this.send({ type: 'child', name, incarnation, atMs: this.now, event });
  }

  /** Time passes; what is due happens at its time, or as late as this world's timers are. */
  advance(ms: number): void {
    const end = this.now + ms;
    for (let due = nextDeadline(this.state); due !== null && due <= end; due = nextDeadline(this.state)) {
      const firesMs = Math.max(this.now, due + this.options.timerLateMs);
      if (firesMs > end) break;
      this.now = firesMs;
      this.tick();
    }
    this.now = end;
  }

  tick(): void {
    this.send({ type: 'tick', atMs: this.now });
  }

  async jobs(): Promise<Job[]> {
    return (await this.store.list({ status: null, source: null, group: null, ids: null }, null, 1e6)).jobs;
  }

  #perform(effect: Effect): void {
    switch (effect.type) {
      case 'spawn':
        return this.#spawn(effect.name, effect.incarnation);
      case 'kill':
        checkKill(this, effect.name);
        return this.die(effect.name, null, 'SIGKILL');
      case 'ask-stop':
        if (effect.name !== 'api' && this.workers.get(effect.name)?.ill) return;
        return this.random() < 0.8 ? this.die(effect.name, 0, null) : this.#noteAsked(effect.name);
      case 'probe-memory': {
        const freeBytes = this.random() < 0.5 ? this.options.deviceBytes : 0;
        return this.say(effect.name, effect.incarnation, { type: 'memory', freeBytes, holder: null });
      }
      case 'measure-device': {
        const memory = { heldBytes: this.options.deviceBytes, freeBytes: 0 };
        return this.say(effect.name, effect.incarnation, { type: 'holds', memory });
      }
      case 'note-impossible':
        if (this.options.lost > 0) return;
        return expect.fail(`${effect.name} was told ${effect.event} while ${effect.phase}`);
      case 'use-next-device':
        if (effect.name !== 'api') this.charged.delete(effect.name);
        return;
      case 'announce-failure':
      case 'tell-progress':
      case 'tell-step':
      case 'tell-decoding':
        return;
      case 'claim':
        return this.later(async () => {
          const job = await this.store.claim(this.takerFor(effect.worker));
          this.send({ type: 'claimed', worker: effect.worker, atMs: this.now, job });
        });
      case 'dispatch':
        return this.#dispatch(effect.worker, effect.job, effect.attempt);
      case 'begin':
        if (effect.start.startedOverReason !== null) this.told.set(effect.jobId, effect.start.step);
        return this.later(async () => void (await this.store.begin(effect.jobId, effect.attempt, effect.start)));
      case 'release':
        return this.later(
          async () => void (await this.store.release(effect.jobId, effect.attempt, effect.death, effect.step)),
        );
      case 'finish':
        return this.later(async () => {
          const job = await this.store.finish(effect.jobId, effect.attempt, effect.step, effect.outcome);
          if (job?.status === 'done') this.doneTimes.set(job.id, (this.doneTimes.get(job.id) ?? 0) + 1);
        });
      case 'cancel-run': {
        const worker = this.workers.get(effect.worker);
        const run = worker?.run;
        if (!worker || run?.job.id !== effect.jobId || worker.ill) return;
        if (!effect.keep) return finish(this, worker, { status: 'cancelled' });
        // A picture that is wanted as far as it is ends after the next step.
        run.last = Math.min(run.last, run.step + 1);
        return;
      }
      case 'record-crash': {
        const { child, cause, job } = effect.crash;
        this.note(`${child} died: ${cause}, ${effect.crash.reason}`);
        if (child === 'api') return;
        if (cause === 'killed') expect(this.child(child).phase, 'given up for a kill').not.toBe('failed');
        else if (!job) this.charged.set(child, [...(this.charged.get(child) ?? []), this.now]);
        return;
      }
      case 'exit':
        this.exits++;
    }
  }

  #noteAsked(name: ChildName): void {
    const worker = name === 'api' ? undefined : this.workers.get(name);
    if (worker) worker.askedToStop = true;
  }

  #spawn(name: ChildName, incarnation: number): void {
    expect(this.#incarnationOf(name), 'two processes of one child').toBeNull();
    if (name === 'api') this.api = incarnation;
    else {
      const fresh = { run: null, ill: null, takenBytes: 0, computedMs: 0, readMs: 0, askedToStop: false };
      this.workers.set(name, { name, incarnation, phase: 'booting', sinceMs: this.now, ...fresh });
    }
    this.send({ type: 'child', name, incarnation, atMs: this.now, event: { type: 'spawned', pid: incarnation } });
  }

  /** A worker goes on from its checkpoint and says so. */
  #dispatch(name: WorkerName, job: Job, attempt: number): void {
    const { options } = this;
    const worker = this.workers.get(name);
    // A message to a process that has just died, or that never arrives, goes nowhere.
    if (!worker || (options.lost > 0 && this.random() < options.lost)) return;
    expect(worker.run, 'two jobs in one worker').toBeNull();
    for (const other of this.workers.values()) expect(other.run?.job.id, 'one job in two workers').not.toBe(job.id);
    const { maxPixels } = this.takerFor(name);
    expect(job.width * job.height, 'a picture that is too large').toBeLessThanOrEqual(maxPixels ?? 1e9);
    const found = this.checkpoints.get(job.id) ?? 0;
    const startedOverReason = found < job.step ? 'its checkpoint is gone' : null;
    worker.run = { job, attempt, step: found, last: job.steps, stepMs: nextStepMs(this) };
    Object.assign(worker, { phase: 'drawing', sinceMs: this.now });
    const { incarnation } = worker;
    const begun = {
      worker: name,
      incarnation,
      atMs: this.now,
      jobId: job.id,
      attempt,
      step: found,
      startedOverReason,
      device: 'cpu',
      model: 'm',
    } as const;
    this.messages.push({ type: 'job-begun', ...begun });
  }

  /** The processes do what they do in this time. */
  work(ms: number): void {
    if (this.api !== null) {
      if (this.#servesFrom !== this.api) this.say('api', this.api, { type: 'ready', msPerToken: 0 });
      this.#servesFrom = this.api;
      const vitals = { rssBytes: 1e8, readBytes: 0, cpuSeconds: this.now / 1000, step: 0, stepShare: 0, work: 0 };
      this.say('api', this.api, { type: 'beat', vitals });
    }
    // What one does may be the end of another.
    for (const worker of [...this.workers.values()])
      if (this.workers.get(worker.name) === worker) work(this, worker, ms);
  }

  /** Messages of a child, in the order in which it sent them. */
  say(name: ChildName, incarnation: number, event: ChildEvent): void {
    this.messages.push({ type: 'child', name, incarnation, atMs: this.now, event });
  }

  /** Everything but the store and the disk is gone; the next supervisor finds those. */
  async startSupervisor(): Promise<void> {
    Object.assign(this, { api: null, state: initialState(this.names), exits: 0 });
    this.workers.clear();
    this.charged.clear();
    this.#servesFrom = null;
    this.#operations = [];
    this.messages = [];
    this.diskFull = false;
    await this.store.recover((id) => this.checkpoints.get(id) ?? 0);
    this.start();
  }

  later(operation: () => Promise<void>): void {
    this.#operations.push(operation);
  }

  note(what: string): void {
    this.story.push(
      `${(this.now / 1000).toFixed(1)} s, ${this.names.map((name) => this.child(name).phase).join('/')}: ${what}`,
    );
    if (this.story.length > 12) this.story.shift();
  }
}
