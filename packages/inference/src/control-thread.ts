/**
 * The worker's control thread. ONNX Runtime blocks the main thread; this one holds the IPC socket, answers, beats,
 * and sets the flags that the main thread reads between steps. When the supervisor is gone it ends the whole process
 * at once, in the middle of a native call too.
 */
import { writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { connectIpc } from '@qwen-supervisor/ipc/connect';
import { VERSION } from '@qwen-supervisor/ipc/version';
import type { WorkerMethods, WorkerReports } from '@qwen-supervisor/protocol/messages';
import sharp from 'sharp';
import { CheckpointWriter, type JobCheckpoint } from './job-checkpoint.js';
import type { Preview } from './recipe/preview.js';
import { type ControlData, type ControlMessage, FLAG, type MainMessage, type Run } from './threads.js';
import { measureVitals } from './vitals.js';

/** While the main thread works: how it gets on is told every second. */
const BEAT_BUSY_MS = 1000;
/** Longest side of a preview, pixels. */
const PREVIEW_MAX = 160;

const { flags, socket, token, dataDir, beatMs, model } = workerData as ControlData;
const main = parentPort as NonNullable<typeof parentPort>;
const toMain = (message: ControlMessage) => main.postMessage(message);

// A fault of this thread would reach the main thread only when that is free again, and nobody could reach us until
// then.
process.on('uncaughtException', (error) => {
  writeSync(2, `${error.stack}\n`);
  process.kill(process.pid, 'SIGABRT');
});

let loaded = false;
let runs = 0;
let current: Run | null = null;
/** Of the current run. */
let checkpoints: CheckpointWriter | null = null;
/** The last checkpoint could not be written. */
let failing = false;

const link = await connectIpc<WorkerReports, WorkerMethods>(socket, () => ({
  run({ jobId, attempt, request, step }) {
    current = { number: ++runs, jobId, attempt, request, step };
    toMain({ type: 'run', run: current });
  },
  cancel({ jobId, attempt, keep }) {
    if (current?.jobId === jobId && current.attempt === attempt)
      Atomics.store(flags, keep ? FLAG.interruptedRun : FLAG.cancelledRun, current.number);
  },
  shutdown() {
    // A load cannot be interrupted and has nothing to save.
    if (!loaded) endProcess();
    Atomics.store(flags, FLAG.stopping, 1);
    toMain({ type: 'stop' });
  },
})).catch(endProcess);
link.onClose = endProcess;
await link.request('hello', { role: 'inference', pid: process.pid, token, version: VERSION }).catch(endProcess);

beat();

function progress() {
  const [step, work, stepShare] = [FLAG.step, FLAG.work, FLAG.stepShare].map((flag) => Atomics.load(flags, flag));
  return { step: step ?? 0, work: work ?? 0, stepShare: (stepShare ?? 0) / 1000 };
}

/** Seldom while nothing is to be watched: an idle machine is left in peace. */
function beat(): void {
  link.notify('beat', measureVitals(progress()));
  const watched = !loaded || current !== null;
  setTimeout(beat, watched ? Math.min(BEAT_BUSY_MS, beatMs) : beatMs);
}

// Previews are encoded asynchronously; the chain keeps the messages in order.
let tail = Promise.resolve();
main.on('message', (message: MainMessage) => {
  tail = tail.then(() => forward(message));
});

async function forward(message: MainMessage): Promise<void> {
  switch (message.type) {
    case 'loading':
      return link.notify('loading', message.progress);
    case 'loaded':
      loaded = true;
      return link.notify('loaded', { seconds: message.seconds, msPerToken: message.msPerToken });
    case 'fatal':
      link.notify('fatal', { error: message.error, permanent: message.permanent });
      return toMain({ type: 'exit', code: message.exitCode });
    case 'stopped':
      return toMain({ type: 'exit', code: 0 });
    case 'begun': {
      const { jobId, attempt } = message.run;
      checkpoints = new CheckpointWriter(dataDir, jobId, message.fit);
      const { step, startedOverReason, fit } = message;
      return link.notify('begun', { jobId, attempt, step, startedOverReason, device: fit.device, model });
    }
    case 'step': {
      const { jobId, attempt } = message.run;
      // Before the step is told: what has been told is not lost.
      if (message.latents) await writeCheckpoint({ step: message.step, latents: message.latents });
      const preview = message.preview && (await encodePreview(message.preview));
      return link.notify('step', { jobId, attempt, step: message.step, preview });
    }
    case 'decoding': {
      const { jobId, attempt } = message.run;
      return link.notify('decoding', { jobId, attempt });
    }
    case 'finished': {
      const { jobId, attempt } = message.run;
      current = null;
      return link.notify('finished', { jobId, attempt, outcome: message.outcome });
    }
  }
}

/** A disk that is full costs the resume, not the picture. Said once. */
async function writeCheckpoint(checkpoint: JobCheckpoint): Promise<void> {
  try {
    await checkpoints?.write(checkpoint);
    failing = false;
  } catch (error) {
    if (!failing) console.error(`checkpoint of step ${checkpoint.step} not written: ${(error as Error).message}`);
    failing = true;
  }
}

/** A preview is an ornament: one that cannot be made is left out. */
async function encodePreview({ pixels, width, height }: Preview): Promise<Buffer | null> {
  try {
    return await sharp(pixels, { raw: { width, height, channels: 3 } })
      .resize(PREVIEW_MAX, PREVIEW_MAX, { fit: 'inside', withoutEnlargement: true })
      .png()
      .toBuffer();
  } catch (error) {
    console.error(`preview left out: ${(error as Error).message}`);
    return null;
  }
}

/** `process.exit` would end this thread only, and the main thread may be inside a native call. */
function endProcess(): never {
  process.kill(process.pid, 'SIGKILL');
  throw new Error('killed');
}
