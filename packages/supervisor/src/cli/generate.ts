import { join } from 'node:path';
import { imageFile } from '@qwen-supervisor/protocol/data-files';
import { CodedError, workerGivenUp } from '@qwen-supervisor/protocol/errors';
import { isTerminal, type Job, type JobOrder, pictureOf } from '@qwen-supervisor/protocol/job';
import { completeRequest, parseNativeRequest } from '@qwen-supervisor/protocol/job-request';
import { drawSeed } from '@qwen-supervisor/protocol/seed';
import type { ChildState } from '@qwen-supervisor/protocol/status';
import progress from 'cli-progress';
import type { Command } from 'commander';
import { answered, type Client, connect, dataDirOf, type Listener, withDataDir } from './client.js';
import { outputOf, writeOutput } from './output.js';
import { print, printError } from './printer.js';

interface Options {
  dataDir?: string;
  output?: string;
  seed?: string;
  steps?: string;
  size?: string;
  cfg?: string;
  negative?: string;
  priority?: string;
}

/** Columns of what stands beside the bar. */
const BESIDE_BAR = 30;
/** From one look at a supervisor that says nothing to the next. */
const LOOK_MS = 5000;
/** States of a worker that keep a job waiting, and have a reason. */
const WAITING = new Set<ChildState>(['backing-off', 'blocked', 'failed']);

/** Exit code of a command ended by SIGINT, as shells count. */
const INTERRUPTED = 130;

export function addGenerate(program: Command): void {
  withDataDir(program.command('generate'))
    .description('draw a picture with the running supervisor')
    .argument('<prompt...>', 'what to draw')
    .option('-o, --output <path>', 'a folder, or a file: .png, .jpg or .webp (default: JOB.png in this folder)')
    .option('--seed <integer>', 'the same seed gives the same picture')
    .option('--steps <count>', 'denoising steps')
    .option('--size <WxH>', 'width and height in pixels, multiples of 16')
    .option('--cfg <scale>', 'true CFG scale; 1 switches guidance off')
    .option('--negative <prompt>', 'what not to draw')
    .option('--priority <integer>', 'higher goes first; 0 if not given')
    .action((words: string[], options: Options) => generate(words.join(' '), options));
}

async function generate(prompt: string, options: Options): Promise<void> {
  const output = outputOf(options.output);
  const given = inFlags(() => parseNativeRequest(toRequest(prompt, options)));
  const watcher: Listener = { event() {}, missed() {}, workerFailed() {} };
  const client = await connect(dataDirOf(options), {
    event: (event) => watcher.event(event),
    missed: () => watcher.missed(),
    workerFailed: (reason) => watcher.workerFailed(reason),
  });
  const { link, welcome, pid, dataDir } = client;
  try {
    const request = inFlags(() => completeRequest(given, welcome.model, welcome.limits, drawSeed));
    const order: JobOrder = { request, priority: given.priority ?? 0, source: 'cli', retryOf: null, owner: null };
    await answered(pid, link.request('subscribe', { since: null }));
    const { jobs } = await answered(pid, link.request('submitJobs', { orders: [order], idempotency: null }));
    const submitted = jobs[0] as Job;
    process.once('SIGINT', () => cancel(client, submitted.id));
    const job = await watchJob(client, submitted, watcher);
    const { id } = pictureOf(job);
    // It names a file of ours.
    if (!/^job_[0-9a-f]{24}$/.test(id)) throw new CodedError('MESSAGE_INVALID', 'the supervisor names no picture');
    const file = output(id);
    await writeOutput(join(dataDir, imageFile(id)), file);
    print(`${file}  seed ${job.seed}`);
  } finally {
    link.close();
  }
}

/** What the fields of a request are called here. */
const FLAGS: Record<string, string> = {
  numInferenceSteps: '--steps',
  trueCfgScale: '--cfg',
  negativePrompt: '--negative',
  width: '--size',
  height: '--size',
  seed: '--seed',
  priority: '--priority',
};

/** @throws CodedError USAGE_INVALID for what is wrong with a request, in the words of the command line */
function inFlags<T>(check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof CodedError) || error.code !== 'REQUEST_INVALID') throw error;
    const message = error.message.replace(/\b[a-zA-Z]+(?=[:,])/g, (name) => FLAGS[name] ?? name);
    throw new CodedError('USAGE_INVALID', message, { cause: error });
  }
}

function toRequest(prompt: string, options: Options): Record<string, unknown> {
  const number = (flag: string, text: string | undefined) => {
    if (text === undefined) return undefined;
    if (text.trim() === '' || !Number.isFinite(Number(text)))
      throw new CodedError('USAGE_INVALID', `${flag}: '${text}' is no number`);
    return Number(text);
  };
  const { size } = options;
  const [, width, height] = /^(\d{1,5})x(\d{1,5})$/i.exec(size ?? '') ?? [];
  if (size !== undefined && !width) throw new CodedError('USAGE_INVALID', `--size: '${size}' is not WIDTHxHEIGHT`);
  const request = {
    prompt,
    negativePrompt: options.negative,
    width: number('--size', width),
    height: number('--size', height),
    numInferenceSteps: number('--steps', options.steps),
    trueCfgScale: number('--cfg', options.cfg),
    seed: number('--seed', options.seed),
    priority: number('--priority', options.priority),
  };
  return Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined));
}

/** Shows the progress of a job until it has ended. */
function watchJob({ link, pid }: Client, submitted: Job, watcher: Listener): Promise<Job> {
  const barsize = Math.max(5, Math.min(40, (process.stderr.columns ?? 80) - BESIDE_BAR));
  const bar = process.stderr.isTTY
    ? new progress.SingleBar({ format: '{state} [{bar}] {step}/{total} steps', barsize }, progress.Presets.legacy)
    : null;
  let waitsFor = '';
  /** In a pipe nobody sees a bar that stands still. */
  const say = (reason: string) => {
    if (bar === null && reason !== waitsFor) printError(`waiting: ${reason}`);
    waitsFor = reason;
  };
  bar?.start(submitted.steps, 0, { state: 'waiting', step: 0 });
  return new Promise<Job>((resolve, reject) => {
    // A supervisor that stands still says nothing of it.
    const looking = setInterval(() => {
      answered(pid, link.request('status', {})).then(({ children }) => {
        const worker = children.find(({ name }) => name === 'inference');
        if (worker && WAITING.has(worker.state)) say(worker.reason);
      }, fail);
    }, LOOK_MS);
    const fail = (error: Error) => {
      clearInterval(looking);
      bar?.stop();
      reject(error);
    };
    const end = (job: Job) => {
      clearInterval(looking);
      if (job.status === 'done') bar?.update(job.steps, { state: 'done   ', step: job.steps });
      bar?.stop();
      resolve(job);
    };
    link.onClose = () => {
      const text = `the supervisor went away; job ${submitted.id} is kept and goes on when it is back`;
      fail(new CodedError('LINK_LOST', text));
    };
    watcher.workerFailed = (reason) => fail(workerGivenUp(reason));
    watcher.event = (event) => {
      if (!('jobId' in event) || event.jobId !== submitted.id) return;
      const { step } = event as { step?: number };
      if (event.type === 'step' || event.type === 'running') bar?.update(event.step, { state: 'drawing', step });
      if (event.type === 'progress') bar?.update(event.progress * event.steps, { state: 'drawing', step });
      if (event.type === 'requeued') bar?.update(event.step, { state: 'waiting', step });
      if ('job' in event && isTerminal(event.job.status)) end(event.job);
    };
    // It may have ended before we listened.
    watcher.missed = () =>
      void link.request('getJob', { id: submitted.id }).then((job) => isTerminal(job.status) && end(job), fail);
    watcher.missed();
  });
}

/** Ends in any case: a supervisor that has gone away meanwhile cannot be told. */
function cancel({ link, pid }: Client, id: string): void {
  const end = () => process.exit(INTERRUPTED);
  answered(pid, link.request('cancelJob', { id, ifQueued: false })).then(end, end);
}
