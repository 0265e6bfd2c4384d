/**
 * Drives the core through random histories: a simulated worker that loads, draws, crashes, hangs and is killed, a
 * simulated store, late and stale messages. Checks after every event that no promise is broken.
 */
import type { Job } from '@qwen-supervisor/protocol/job';
import {
  type Effect,
  type Event,
  initialState,
  nextDeadline,
  type State,
  step,
} from '@qwen-supervisor/supervisor/supervisor';
import { describe, expect, test } from 'vitest';

const CHILD = { max: 4, windowMs: 60_000, delayCapMs: 5000, stopMs: 1000, loadStallMs: 5000, loadLimitMs: 20_000 };
const LIMITS = { inference: { ...CHILD, beatLimitMs: 3000 }, api: { ...CHILD, delayCapMs: 1000, beatLimitMs: null } };
/** `SEEDS=17 npx vitest run test/supervisor/simulation.test.ts` replays one history. */
const SEEDS = process.env.SEEDS
  ? process.env.SEEDS.split(',').map(Number)
  : Array.from({ length: 300 }, (_, i) => i + 1);

class World {
  state: State = initialState();
  now = 0;
  jobs: { id: string; status: 'queued' | 'running' | 'ended'; attempts: number; ends: number }[] = [];
  /** Incarnation of the live worker process. */
  worker: number | null = null;
  api: number | null = null;
  run: { jobId: string; attempt: number } | null = null;
  exits = 0;
  #random: number;

  constructor(seed: number) {
    this.#random = seed;
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
    for (const effect of effects) this.perform(effect);
  }

  child(name: 'inference' | 'api', incarnation: number, event: Extract<Event, { type: 'child' }>['event']): void {
    this.send({ type: 'child', name, incarnation, atMs: this.now, event });
  }

  perform(effect: Effect): void {
    switch (effect.type) {
      case 'spawn':
        expect(this[effect.name === 'api' ? 'api' : 'worker'], 'two processes of one child').toBeNull();
        this[effect.name === 'api' ? 'api' : 'worker'] = effect.incarnation;
        return this.child(effect.name, effect.incarnation, { type: 'spawned', pid: effect.incarnation });
      case 'kill':
        return this.die(effect.name, null, 'SIGKILL');
      case 'ask-stop':
        return this.random() < 0.8 ? this.die(effect.name, 0, null) : undefined;
      case 'claim': {
        const job = this.jobs.find(({ status }) => status === 'queued');
        if (job) Object.assign(job, { status: 'running', attempts: job.attempts + 1 });
        return this.send({
          type: 'claimed',
          atMs: this.now,
          job: job ? ({ ...job, steps: 5 } as unknown as Job) : null,
        });
      }
      case 'dispatch':
        expect(this.run, 'two jobs in one worker').toBeNull();
        if (this.worker !== null) this.run = { jobId: effect.job.id, attempt: effect.attempt };
        return;
      case 'release': {
        const job = this.jobs.find(({ id }) => id === effect.jobId);
        expect(job?.status).toBe('running');
        if (job) job.status = 'queued';
        return;
      }
      case 'finish': {
        const job = this.jobs.find(({ id, attempts }) => id === effect.jobId && attempts === effect.attempt);
        expect(job?.status, 'a job that is not running was finished').toBe('running');
        if (job) Object.assign(job, { status: 'ended', ends: job.ends + 1 });
        return;
      }
      case 'exit':
        this.exits++;
    }
  }

  die(name: 'inference' | 'api', code: number | null, signal: string | null): void {
    const slot = name === 'api' ? 'api' : 'worker';
    const incarnation = this[slot];
    if (incarnation === null) return;
    this[slot] = null;
    if (name === 'inference') this.run = null;
    this.child(name, incarnation, { type: 'exited', code, signal, at: '', random: this.random() });
  }

  /** One thing that could happen now. */
  happen(): void {
    const dice = this.random();
    const incarnation = this.worker;
    if (dice < 0.1) {
      this.jobs.push({ id: `job ${this.jobs.length}`, status: 'queued', attempts: 0, ends: 0 });
      this.send({ type: 'job-queued', atMs: this.now });
    } else if (dice < 0.14) this.die('inference', null, this.random() < 0.5 ? 'SIGSEGV' : 'SIGKILL');
    else if (dice < 0.17) this.die('api', 1, null);
    else if (dice < 0.2 && incarnation !== null) {
      // A message of a process that is gone.
      this.child('inference', incarnation - 1, { type: 'exited', code: 1, signal: null, at: '', random: 0 });
      this.send({
        type: 'job-finished',
        incarnation: incarnation - 1,
        atMs: this.now,
        jobId: 'job 0',
        attempt: 1,
        outcome: { status: 'cancelled' },
      });
    } else if (incarnation === null) this.advance(2000);
    else if (this.state.children.inference.state === 'starting')
      this.child('inference', incarnation, { type: 'connected' });
    else if (this.state.children.inference.state === 'loading') {
      if (dice < 0.6) this.send({ type: 'loaded', incarnation, atMs: this.now, seconds: 1 });
      else this.advance(3000);
    } else if (this.run && dice < 0.6) {
      const { jobId, attempt } = this.run;
      this.run = null;
      const outcome = { status: 'done', imageId: jobId, file: '', sha256: '', bytes: 1 } as const;
      this.send({ type: 'job-finished', incarnation, atMs: this.now, jobId, attempt, outcome });
    } else if (dice < 0.9) {
      this.advance(1000);
      if (this.worker === incarnation) this.child('inference', incarnation, { type: 'beat' });
    } else this.advance(2500);
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

  check(): void {
    const running = this.jobs.filter(({ status }) => status === 'running');
    expect(running.length, 'more than one job is running').toBeLessThanOrEqual(1);
    expect(running[0]?.id, 'a job is running that nobody holds').toBe(this.state.current?.job.id);
    expect(
      this.jobs.every(({ ends, status }) => ends === (status === 'ended' ? 1 : 0)),
      'a job ended twice',
    ).toBe(true);
    const { state } = this.state.children.inference;
    const idle = state === 'ready' && !this.state.stopping;
    expect(idle && this.jobs.some((job) => job.status === 'queued'), 'a ready worker is idle while jobs wait').toBe(
      false,
    );
    expect(this.worker !== null, `a process in state ${state}`).toBe(
      !['stopped', 'backing-off', 'failed'].includes(state),
    );
    if (['starting', 'loading', 'stopping', 'backing-off'].includes(state))
      expect(nextDeadline(this.state)).not.toBeNull();
  }
}

describe('random histories', () => {
  test.each(SEEDS)('with seed %i keep every promise', (seed) => {
    const world = new World(seed);
    world.send({ type: 'start', atMs: 0 });
    for (let i = 0; i < 200; i++) {
      world.happen();
      world.check();
    }
    world.send({ type: 'stop', atMs: world.now });
    world.advance(60_000);
    expect([world.worker, world.api], 'a process is left after the stop').toEqual([null, null]);
    expect(world.exits, 'the supervisor ends once').toBe(1);
    expect(
      world.jobs.filter(({ status }) => status === 'running'),
      'a job is stuck after the stop',
    ).toEqual([]);
  });
});
