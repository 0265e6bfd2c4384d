/**
 * The inference worker: one process per device, started by the supervisor (worker.ts).
 *
 * This is the main thread. It loads the model, then draws one picture after the other. ONNX Runtime blocks it, so that
 * everything that must answer at once lives in control-thread.ts. SIGTERM has no handler on purpose: its default action
 * ends the process even inside a native call.
 */
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { RELEASE } from '@qwen-supervisor/ipc/version';
import { fingerprint } from '@qwen-supervisor/model/checkpoint';
import { openModel } from '@qwen-supervisor/model/registry/open-model';
import { CodedError, ERRORS } from '@qwen-supervisor/protocol/errors';
import { type JobRequest, requireDrawable, stepsOf, tokensOf } from '@qwen-supervisor/protocol/job-request';
import { CHILD_ENV, type JobOutcome, type WorkerSettings } from '@qwen-supervisor/protocol/messages';
import { pictureTexts } from '@qwen-supervisor/protocol/picture-text';
import type { LoadProgress } from '@qwen-supervisor/protocol/status';
import { findCheckpoint, fitOf } from './job-checkpoint.js';
import { readInput, writePicture } from './picture-file.js';
import { threadCount } from './processors.js';
import { FloatCache } from './recipe/float-cache.js';
import {
  decodePacked,
  denoise,
  drawPicture,
  encodePrompts,
  firstNoise,
  type Observer,
  type Over,
  scheduleOf,
} from './recipe/pipeline.js';
import { drawPreview, type PreviewMap, previewMap } from './recipe/preview.js';
import { fromRuntime } from './recipe/runtime-error.js';
import { latentSize, loadSessions, type Sessions } from './recipe/sessions.js';
import { type ControlData, type ControlMessage, FLAG, FLAG_COUNT, type MainMessage, type Run } from './threads.js';

/** Previews of a picture. */
const PREVIEWS = 5;
/** Of some models; each takes some hundred. */
const PREVIEW_BYTES_MAX = 1 << 16;

const settings = JSON.parse(process.env[CHILD_ENV.settings] ?? '{}') as WorkerSettings;
const threads = threadCount(settings.threads, settings.sharers);
const flags = new Int32Array(new SharedArrayBuffer(4 * FLAG_COUNT));
const control = new Worker(new URL('./control-thread.js', import.meta.url), {
  workerData: {
    flags,
    socket: process.env[CHILD_ENV.socket] ?? '',
    token: process.env[CHILD_ENV.token] ?? '',
    dataDir: settings.dataDir,
    beatMs: settings.beatMs,
    model: settings.model,
  } satisfies ControlData,
});
const tell = (message: MainMessage, transfer: ArrayBuffer[] = []) => control.postMessage(message, transfer);

/** The run that arrived last; the supervisor gives one at a time. */
let waiting: Run | null = null;
let wake: () => void = () => {};
control.on('message', (message: ControlMessage) => {
  if (message.type === 'exit') process.exit(message.code);
  if (message.type === 'run') waiting = message.run;
  wake();
});

/** Something was completed: whoever watches sees that this thread gets on. */
function onWork(): void {
  Atomics.add(flags, FLAG.work, 1);
}

interface Model {
  sessions: Sessions;
  colours: PreviewMap;
  fingerprint: string;
}

/** Whether a picture was finished in this process. */
let hasDrawn = false;
const model = await load();
if (model) await drawUntilStopped(model);

async function load(): Promise<Model | null> {
  const start = performance.now();
  try {
    const { checkpoint, cacheFolder } = openModel(settings.dataDir, settings.modelFolder);
    let total = 0;
    let isLoaded = false;
    const { plan, device, compute } = settings;
    const report = (progress: LoadProgress) => {
      onWork();
      // What comes and goes with a job's stages is part of the job.
      if (isLoaded) return;
      total = Math.max(total, progress.bytesTotal);
      tell({ type: 'loading', progress });
    };
    const sessions = await loadSessions(checkpoint, { cacheFolder, threads, plan, device, compute, report, onWork });
    const warmingUp = () =>
      tell({ type: 'loading', progress: { component: 'warm-up', bytesDone: total, bytesTotal: total } });
    if (plan.residentPixels > 0) warmingUp();
    const msPerToken = await warmUp(sessions);
    warmingUp();
    const known = new FloatCache(join(cacheFolder, 'preview'), PREVIEW_BYTES_MAX);
    const colours = await previewMap(sessions, known, `${fingerprint(checkpoint)} ${RELEASE}`);
    isLoaded = true;
    tell({ type: 'loaded', seconds: (performance.now() - start) / 1000, msPerToken });
    return { sessions, colours, fingerprint: fingerprint(checkpoint) };
  } catch (error) {
    // What a card fails with in its first runs is of the card: where it goes on so, the next one takes its place.
    const other = settings.device === 'cpu' ? 'INTERNAL' : 'DEVICE_UNAVAILABLE';
    const coded = fromRuntime(error, other, 'the model was being loaded');
    // A file that is wrong stays wrong; anything else may be better next time.
    const permanent = coded.code !== 'INTERNAL' && !ERRORS[coded.code].retryable;
    tell({ type: 'fatal', error: coded.toObject(), permanent, exitCode: ERRORS[coded.code].exit });
    return null;
  }
}

/**
 * The first run of every session is slow, and a model that cannot draw should say so before it is called ready. Gives
 * the milliseconds of a pass by token: not of the first one, nor of a small picture, where the time goes into the
 * weights.
 */
async function warmUp(sessions: Sessions): Promise<number> {
  const [small, large] = [blank(64), blank(256)];
  const observer: Observer = {
    onStep() {},
    onPart: onWork,
    onDecoding() {},
    isCancelled: () => false,
    isInterrupted: () => false,
  };
  sessions.nextPicture(large.width * large.height);
  const prompts = await ifFinite(encodePrompts(sessions, small, observer.isCancelled));
  if (!prompts) return 0;
  const pass = (request: JobRequest) => {
    const start = { step: 0, latents: firstNoise(sessions, request) };
    return ifFinite(denoise(sessions, request, prompts, scheduleOf(sessions, request), start, observer));
  };
  const reached = await pass(small);
  const begunMs = performance.now();
  await pass(large);
  const msPerToken = (performance.now() - begunMs) / tokensOf(large);
  const { h, w } = latentSize(small.width, small.height);
  if (reached) await decodePacked(sessions, reached.latents, h / 2, w / 2);
  return msPerToken;
}

/** Null where it is not: each job says where, and some sizes may be well. */
async function ifFinite<T>(computed: Promise<T>): Promise<T | null> {
  try {
    return await computed;
  } catch (error) {
    if (!(error instanceof CodedError) || error.code !== 'VALUES_NOT_FINITE') throw error;
    console.error(`warm-up: ${error.message}; ${error.hint}`);
    return null;
  }
}

function blank(side: number): JobRequest {
  return {
    prompt: ' ',
    negativePrompt: ' ',
    width: side,
    height: side,
    numInferenceSteps: 1,
    trueCfgScale: 1,
    seed: 0,
    initImage: null,
    strength: null,
    mask: null,
  };
}

async function drawUntilStopped(model: Model): Promise<void> {
  for (;;) {
    while (!waiting && !isStopping()) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    if (isStopping()) return tell({ type: 'stopped' });
    const run = waiting as unknown as Run;
    waiting = null;
    const outcome = await attempt(run, model);
    // Stopped in mid-picture: the job goes back to the queue, and this attempt has no outcome.
    if (outcome.status !== 'cancelled' || !isStopping()) tell({ type: 'finished', run, outcome });
  }
}

async function attempt(run: Run, { sessions, colours, fingerprint: modelFingerprint }: Model): Promise<JobOutcome> {
  const { request } = run;
  const steps = stepsOf(request);
  const every = Math.max(1, Math.floor(steps / PREVIEWS));
  const observer: Observer = {
    isCancelled: () => isStopping() || Atomics.load(flags, FLAG.cancelledRun) === run.number,
    isInterrupted: () => Atomics.load(flags, FLAG.interruptedRun) === run.number,
    onDecoding: () => tell({ type: 'decoding', run }),
    onPart(share) {
      Atomics.store(flags, FLAG.stepShare, Math.floor(1000 * share));
      onWork();
    },
    onStep(state) {
      Atomics.store(flags, FLAG.step, state.step);
      Atomics.store(flags, FLAG.stepShare, 0);
      const preview = state.step % every === 0 ? drawPreview(colours, state) : null;
      const due = state.step % settings.checkpointSteps === 0 || state.step === steps;
      const kept = due || isStopping();
      const latents = kept ? state.latents.slice() : null;
      tell({ type: 'step', run, step: state.step, latents, preview }, latents ? [latents.buffer] : []);
    },
  };
  try {
    // It may be of another time, when there was another model, or more memory.
    requireDrawable(request, settings, settings.plan.largestPixels);
    const fit = fitOf(request, modelFingerprint, runtimeFor(request, sessions), settings);
    const { checkpoint, reason } = findCheckpoint(
      settings.dataDir,
      run.jobId,
      fit,
      run.step,
      settings.startsOverElsewhere,
    );
    Atomics.store(flags, FLAG.step, checkpoint?.step ?? 0);
    Atomics.store(flags, FLAG.stepShare, 0);
    tell({ type: 'begun', run, fit, step: checkpoint?.step ?? 0, startedOverReason: reason });
    const over = await readOver(request);
    const picture = await drawPicture(sessions, request, observer, checkpoint, over);
    if (!picture) return { status: 'cancelled' };
    const texts = settings.embedsMetadata ? pictureTexts(request, settings.model) : {};
    const file = await writePicture(picture, texts, settings.dataDir, run.jobId);
    hasDrawn = true;
    return { status: 'done', step: picture.step, imageId: run.jobId, ...file };
  } catch (error) {
    const coded = fromRuntime(error, 'INFERENCE_FAILED', 'drawing');
    // What pictures before this one have left on a card, or others have taken since, a new process finds free, or plans
    // without. One that has drawn nothing yet finds no more.
    const isFull = coded.code === 'DEVICE_MEMORY_EXHAUSTED' && settings.device !== 'cpu' && hasDrawn;
    if (coded.code === 'DEVICE_LOST' || isFull) return giveUp(coded);
    return { status: 'failed', error: coded.toObject() };
  } finally {
    Atomics.store(flags, FLAG.stepShare, 0);
  }
}

/** What is lost is dead, and what is full stays full: another process goes on with the job. Never resolves. */
function giveUp(error: CodedError): Promise<never> {
  tell({ type: 'fatal', error: error.toObject(), permanent: false, exitCode: ERRORS[error.code].exit });
  return new Promise(() => {});
}

/** What is drawn over is encoded in tiles or whole, and that is in the latents; how they are decoded is not. */
function runtimeFor({ width, height, initImage }: JobRequest, sessions: Sessions): string {
  const rounding = sessions.roundingOf(width * height);
  if (initImage === null) return rounding;
  return `${rounding}, encoded ${width * height > settings.plan.tileAbovePixels ? 'in tiles' : 'whole'}`;
}

/** The picture that is drawn over, and where. */
async function readOver({ initImage, mask }: JobRequest): Promise<Over | null> {
  if (initImage === null) return null;
  const { dataDir } = settings;
  return {
    pixels: await readInput(dataDir, initImage, 3),
    mask: mask === null ? null : await readInput(dataDir, mask, 1),
  };
}

function isStopping(): boolean {
  return Atomics.load(flags, FLAG.stopping) === 1;
}
