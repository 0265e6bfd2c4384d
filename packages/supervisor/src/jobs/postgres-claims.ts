/**
 * The jobs that are in the hands of this supervisor: it says again and again that it lives, hears which of them were
 * taken from it or are to be cancelled, and takes from others that are silent what they held.
 */
import type { PictureChange } from '@qwen-supervisor/protocol/events';
import type { JobProgress } from '@qwen-supervisor/protocol/job';
import type { MachineReport, MachineStatus } from '@qwen-supervisor/protocol/status';
import type { PostgresDatabase } from './postgres-database.js';
import type { Claim, PostgresEngine } from './postgres-engine.js';
import type { PostgresMachines } from './postgres-machines.js';

export type JobNews = 'queued' | 'moved' | 'running' | 'requeued' | 'ended';

/** What another machine has done, and what is to be done about it. */
export interface ClaimHooks {
  /** How this one is; null before there is anything to tell. */
  report(): MachineReport | null;
  /** How all are; told again and again. */
  onMachines(machines: MachineStatus[]): void;
  /** Of a job that another one draws. `hasPreview`: where pictures are shared. */
  onProgress(progress: JobProgress, hasPreview: boolean): void;
  /** Another one has starred pictures, thrown them away or taken them back, or removed them, with these files. */
  onPictures(ids: string[], change: PictureChange, files: string[]): void;
  /** There may be something to claim. */
  onWork(): void;
  /** So it is with these jobs now, by way of another supervisor. */
  onJobs(ids: string[], news: JobNews): void;
  /** Notices were lost: whatever is known of jobs that are not ours may be otherwise. */
  onMissed(): void;
  /** Somebody wants this job to end; `keep`: with the picture that it has reached. */
  onCancel(id: string, keep: boolean): void;
  /** It was taken from us: whatever comes of it is of no use. */
  onLost(id: string): void;
  /** The database does not do what it is asked; null when it does again. */
  onAway(error: Error | null): void;
}

/** A third of what is waited for a sign of life. */
const BEAT_MS = 3000;
const SWEEP_MS = 2000;
/** Notices may be missed: so often it is looked without one. */
const LOOK_MS = 5000;
/**
 * After a start, and after a time without the database, the others have this long to say that they live: else all that
 * runs would be taken from all at once.
 */
const HELD_BACK_MS = 10_000;

interface Held extends Claim {
  attempt: number;
}

export class PostgresClaims {
  readonly #database: PostgresDatabase;
  readonly #engine: PostgresEngine;
  readonly #hooks: ClaimHooks;
  /** By job. */
  readonly #held = new Map<string, Held>();
  /** Puts those that the engine has taken from their holders back into the queue. */
  readonly #reconcile: () => Promise<void>;
  readonly #machines: PostgresMachines;
  /** Tells the others that they should look at the machines. */
  readonly #tellMachines: () => Promise<unknown>;
  readonly #timers: NodeJS.Timeout[] = [];
  #working = new Set<Promise<void>>();
  #sweepsFromMs = performance.now() + HELD_BACK_MS;
  #lookedAtMs = performance.now();
  #isAway = false;

  constructor(parts: {
    database: PostgresDatabase;
    engine: PostgresEngine;
    machines: PostgresMachines;
    hooks: ClaimHooks;
    reconcile: () => Promise<void>;
    tellMachines: () => Promise<unknown>;
  }) {
    this.#database = parts.database;
    this.#engine = parts.engine;
    this.#machines = parts.machines;
    this.#hooks = parts.hooks;
    this.#reconcile = parts.reconcile;
    this.#tellMachines = parts.tellMachines;
  }

  start(): void {
    this.#every(
      BEAT_MS,
      () => this.#held.size > 0,
      () => this.#beat(),
    );
    this.#every(
      BEAT_MS,
      () => true,
      () => this.#live(),
    );
    this.#every(
      SWEEP_MS,
      () => this.#maySweep(),
      () => this.#sweep(),
    );
    this.#timers.push(setInterval(() => this.#hooks.onWork(), LOOK_MS).unref());
  }

  /** The same job may have been taken from one of our workers, and be claimed by another of them. */
  took(id: string, attempt: number, claim: Claim): void {
    if (this.#held.has(id)) this.#hooks.onLost(id);
    this.#held.set(id, { ...claim, attempt });
  }

  gave(id: string, attempt: number): void {
    if (this.#held.get(id)?.attempt === attempt) this.#held.delete(id);
  }

  async #beat(): Promise<void> {
    const held = [...this.#held];
    const sql = this.#database.alone;
    const ours = await this.#engine.beat(
      sql,
      held.map(([, { id, retryCount }]) => ({ id, retryCount })),
    );
    for (const [id, claim] of held) {
      // It may have been settled, or claimed anew, while the question was under way.
      if (ours.has(claim.id) || this.#held.get(id) !== claim) continue;
      this.#held.delete(id);
      this.#hooks.onLost(id);
    }
    const wanted = `SELECT id, cancel_keeps FROM ${this.#database.schema}.jobs
      WHERE status = 'running' AND cancel_requested = 1 AND id = ANY($1)`;
    const cancelled = await sql.all<{ id: string; cancel_keeps: boolean }>(wanted, [...this.#held.keys()]);
    for (const { id, cancel_keeps: keep } of cancelled) if (this.#held.has(id)) this.#hooks.onCancel(id, keep);
  }

  async #live(): Promise<void> {
    const report = this.#hooks.report();
    if (report && (await this.#machines.beat(report))) await this.#tellMachines();
    await this.look();
  }

  /** How the machines are: one that has fallen silent tells nobody so. */
  async look(): Promise<void> {
    this.#hooks.onMachines(await this.#machines.list());
  }

  /** Whoever stood still has heard of nobody: the others, and we, say first that we live. */
  #maySweep(): boolean {
    const nowMs = performance.now();
    if (nowMs - this.#lookedAtMs > 2 * SWEEP_MS) this.#sweepsFromMs = nowMs + HELD_BACK_MS;
    this.#lookedAtMs = nowMs;
    return nowMs >= this.#sweepsFromMs;
  }

  async #sweep(): Promise<void> {
    // Where nothing runs nobody can be silent about it, and a sweep is ten statements of every machine.
    const running = `SELECT EXISTS (SELECT FROM ${this.#database.schema}.jobs WHERE status = 'running') AS any`;
    const askedMs = performance.now();
    const isAnyRunning = (await this.#database.alone.one<{ any: boolean }>(running))?.any;
    // While somebody had the table to himself nobody could say that he lives.
    if (performance.now() - askedMs > SWEEP_MS) this.#sweepsFromMs = performance.now() + HELD_BACK_MS;
    else if (isAnyRunning) await this.#sweepAll();
  }

  async #sweepAll(): Promise<void> {
    try {
      await this.#engine.sweep();
    } finally {
      await this.#reconcile();
    }
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await Promise.all(this.#working);
  }

  /** One at a time; what fails is tried again the next time. */
  #every(ms: number, isDue: () => boolean, act: () => Promise<void>): void {
    let acting: Promise<void> | null = null;
    const tick = () => {
      if (acting || !isDue()) return;
      acting = act()
        .then(
          () => this.#note(null),
          (error: Error) => this.#note(error),
        )
        .finally(() => {
          this.#working.delete(working);
          acting = null;
        });
      const working = acting;
      this.#working.add(working);
    };
    this.#timers.push(setInterval(tick, ms).unref());
  }

  #note(error: Error | null): void {
    if (error) this.#sweepsFromMs = performance.now() + HELD_BACK_MS;
    if (this.#isAway === (error !== null)) return;
    this.#isAway = error !== null;
    this.#hooks.onAway(error);
  }
}
