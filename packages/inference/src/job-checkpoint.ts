/**
 * Checkpoints of a running job: the latents after a step, so that another attempt goes on from there and draws the same
 * picture bit by bit.
 *
 * Layout: magic (8 bytes), length of the header (4 bytes, little-endian), header (JSON), latents (float32,
 * little-endian), SHA-256 of everything before (32 bytes). A file is complete under its name or not there; only a
 * power cut can tear one, and then the checksum tells. The newest that was synced is kept beside the newest of all.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  fsync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { syncFolder } from '@qwen-supervisor/files/replace-file';
import { CHECKPOINTS_FOLDER, checkpointName, parseCheckpointName } from '@qwen-supervisor/protocol/data-files';
import { type JobRequest, requestOf } from '@qwen-supervisor/protocol/job-request';

const MAGIC = Buffer.from('QWENJOB1');
const SUM_BYTES = 32;
/** The page cache survives the death of a process; only a power cut needs the disk, and may cost this much work. */
const SYNC_EVERY_MS = 1000;

/** What must be equal for the remaining steps to give the same bits. */
export interface Fit {
  /** The request, as JSON. */
  request: string;
  /** Fingerprint of the model's files. */
  model: string;
  /** Build of the runtime, processor and threads: rounding may differ between them. */
  runtime: string;
  /** What it is computed on: `cuda:0`. */
  device: string;
  /**
   * What that is: `cuda NVIDIA GeForce RTX 4090`. Of another one a checkpoint fits too, unless the operator wants it
   * otherwise: it differs in rounding alone, and is told.
   */
  card: string;
}

/** The state after `step` completed steps. */
export interface JobCheckpoint {
  step: number;
  /** Packed latents [tokens, channels]. */
  latents: Float32Array;
}

interface Header {
  step: number;
  fit: Fit;
  floats: number;
}

/** `model`: fingerprint of the checkpoint folder; `runtime`: what computes, and how. */
export function fitOf(
  request: JobRequest,
  model: string,
  runtime: string,
  { device, card }: Pick<Fit, 'device' | 'card'>,
): Fit {
  return { request: JSON.stringify(requestOf(request)), model, runtime, device, card };
}

/** Writes the checkpoints of one run. */
export class CheckpointWriter {
  readonly #folder: string;
  readonly #jobId: string;
  readonly #fit: Fit;
  #lastStep: number | null = null;
  #syncedStep: number | null = null;
  #syncedAtMs = Number.NEGATIVE_INFINITY;

  /** What attempts before have left goes with the first checkpoint of this one. */
  constructor(dataDir: string, jobId: string, fit: Fit) {
    this.#folder = join(dataDir, CHECKPOINTS_FOLDER);
    this.#jobId = jobId;
    this.#fit = fit;
  }

  /** Resolves when the checkpoint is there under its name. @throws Error of the file system, ENOSPC among them */
  async write({ step, latents }: JobCheckpoint): Promise<void> {
    const nowMs = performance.now();
    const sync = nowMs - this.#syncedAtMs >= SYNC_EVERY_MS;
    const path = this.#path(step);
    const temporary = `${path}.tmp`;
    try {
      if (this.#lastStep === null) mkdirSync(this.#folder, { recursive: true });
      // A page of the cache is written faster than a thread of the pool is woken; only the disk is waited for.
      const fd = openSync(temporary, 'w');
      try {
        writeFileSync(fd, encode({ step, fit: this.#fit, floats: latents.length }, latents));
        if (sync) await promisify(fsync)(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(temporary, path);
      if (sync) await syncFolder(this.#folder);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
    this.#removeOlder(step, sync);
    this.#lastStep = step;
    if (sync) {
      this.#syncedStep = step;
      this.#syncedAtMs = nowMs;
    }
  }

  #removeOlder(step: number, sync: boolean): void {
    const old =
      this.#lastStep === null
        ? checkpointedSteps(this.#folder, this.#jobId)
        : [this.#lastStep === this.#syncedStep ? null : this.#lastStep, sync ? this.#syncedStep : null];
    for (const other of old) if (other !== null && other !== step) rmSync(this.#path(other), { force: true });
  }

  #path(step: number): string {
    return join(this.#folder, checkpointName(this.#jobId, step));
  }
}

/**
 * The newest checkpoint of a job that fits. `reason` tells why a newer one does not, or why there is none although
 * `expectedStep` steps were completed.
 */
export function findCheckpoint(
  dataDir: string,
  jobId: string,
  fit: Fit,
  expectedStep: number,
  startsOverElsewhere: boolean,
): { checkpoint: JobCheckpoint | null; reason: string | null } {
  const folder = join(dataDir, CHECKPOINTS_FOLDER);
  let reason: string | null = null;
  for (const step of checkpointedSteps(folder, jobId).sort((a, b) => b - a)) {
    const file = join(folder, checkpointName(jobId, step));
    const read = load(file, fit, startsOverElsewhere);
    if (typeof read !== 'string') {
      if (step < expectedStep) reason ??= `the last checkpoint is of step ${step}`;
      return { checkpoint: read, reason };
    }
    reason ??= `the checkpoint of step ${step} ${read}`;
    // Its name must not claim steps that the job no longer has.
    rmSync(file, { force: true });
  }
  if (expectedStep > 0) reason ??= 'its checkpoint is gone';
  return { checkpoint: null, reason };
}

function checkpointedSteps(folder: string, jobId: string): number[] {
  try {
    return readdirSync(folder).flatMap((name) => {
      const parsed = parseCheckpointName(name);
      return parsed?.jobId === jobId ? [parsed.step] : [];
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function encode(header: Header, latents: Float32Array): Buffer {
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  const parts = [MAGIC, length, json, new Uint8Array(latents.buffer, latents.byteOffset, latents.byteLength)];
  const sum = createHash('sha256');
  for (const part of parts) sum.update(part);
  return Buffer.concat([...parts, sum.digest()]);
}

/** Fields that an older version did not have are as if they had not been given. */
function isSameRequest(stored: string, asked: string): boolean {
  return JSON.stringify(requestOf(JSON.parse(stored) as JobRequest)) === asked;
}

/** Earlier versions named the card by its number: equal ones round alike. */
function withoutNumber(runtime: string): string {
  return runtime.replace(/ on (cuda|webgpu):\d+/, ' on $1');
}

/** Those of earlier versions name the device alone, or none. */
function isEqualCard(stored: Partial<Fit>, fit: Fit): boolean {
  if (stored.card !== undefined) return stored.card === fit.card;
  return stored.device === undefined || stored.device === fit.device;
}

/** The checkpoint, or what is wrong with it. */
function load(file: string, fit: Fit, startsOverElsewhere: boolean): JobCheckpoint | string {
  try {
    return decode(readFileSync(file), fit, startsOverElsewhere);
  } catch (error) {
    return `cannot be read (${(error as Error).message})`;
  }
}

function decode(bytes: Buffer, fit: Fit, startsOverElsewhere: boolean): JobCheckpoint | string {
  const end = bytes.length - SUM_BYTES;
  const start = MAGIC.length + 4;
  if (end < start || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) return 'is damaged';
  if (!createHash('sha256').update(bytes.subarray(0, end)).digest().equals(bytes.subarray(end))) return 'is damaged';
  const headerEnd = start + bytes.readUInt32LE(MAGIC.length);
  const header = JSON.parse(bytes.toString('utf8', start, headerEnd)) as Header & { fit: Partial<Fit> };
  if (!isSameRequest(header.fit.request, fit.request))
    return 'belongs to another request, or to an older version of it';
  if (header.fit.model !== fit.model) return 'belongs to another model';
  const isOfAnother = !isEqualCard(header.fit, fit);
  if (isOfAnother && startsOverElsewhere)
    return `was computed on another kind of card (${header.fit.card ?? header.fit.device})`;
  if (!isOfAnother && withoutNumber(header.fit.runtime) !== fit.runtime)
    return `was computed with another runtime (${header.fit.runtime})`;
  const latents = new Float32Array(header.floats);
  new Uint8Array(latents.buffer).set(bytes.subarray(headerEnd, end));
  return { step: header.step, latents };
}
