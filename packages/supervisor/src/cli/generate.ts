import { copyFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CodedError, workerGivenUp } from '@qwen-supervisor/protocol/errors';
import { isTerminal, type Job, type JobImage, type JobOrder, pictureOf } from '@qwen-supervisor/protocol/job';
import { completeRequest, parseNativeRequest } from '@qwen-supervisor/protocol/job-request';
import { drawSeed } from '@qwen-supervisor/protocol/seed';
import progress from 'cli-progress';
import type { Command } from 'commander';
import { type Client, connect, dataDirOf, type Listener, withDataDir } from './client.js';
import { print } from './printer.js';

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

/** Exit code of a command ended by SIGINT, as shells count. */
const INTERRUPTED = 130;

export function addGenerate(program: Command): void {
  withDataDir(program.command('generate'))
    .description('draw a picture with the running supervisor')
    .argument('<prompt>', 'what to draw')
    .option('-o, --output <file>', 'where to put the picture (default: JOB.png in this folder)')
    .option('--seed <integer>', 'the same seed gives the same picture')
    .option('--steps <count>', 'denoising steps')
    .option('--size <WxH>', 'width and height in pixels, multiples of 16')
    .option('--cfg <scale>', 'true CFG scale; 1 switches guidance off')
    .option('--negative <prompt>', 'what not to draw')
    .option('--priority <integer>', 'higher goes first; 0 if not given')
    .action((prompt: string, options: Options) => generate(prompt, options));
}

async function generate(prompt: string, options: Options): Promise<void> {
  const watcher: Listener = { event() {}, missed() {}, workerFailed() {} };
  const client = await connect(dataDirOf(options), {
    event: (event) => watcher.event(event),
    missed: () => watcher.missed(),
    workerFailed: (reason) => watcher.workerFailed(reason),
  });
  const { link, welcome } = client;
  try {
    const given = parseNativeRequest(toRequest(prompt, options));
    const request = completeRequest(given, welcome.model.defaults, welcome.limits, drawSeed);
    const order: JobOrder = { request, priority: given.priority ?? 0, source: 'cli', retryOf: null, owner: null };
    await link.request('subscribe', { since: null });
    const { jobs } = await link.request('submitJobs', { orders: [order], idempotency: null });
    const submitted = jobs[0] as Job;
    process.once('SIGINT', () => cancel(client, submitted.id));
    const job = await watchJob(client, submitted, watcher);
    const output = resolve(options.output ?? `${job.id}.png`);
    await copyPicture(client, pictureOf(job), output);
    print(`${output}  seed ${job.seed}`);
  } finally {
    link.close();
  }
}

/** Flags as a request; what is not a number stays text and is refused with the field's name. */
function toRequest(prompt: string, options: Options): Record<string, unknown> {
  const number = (text: string | undefined) =>
    text === undefined || text.trim() === '' || Number.isNaN(Number(text)) ? text : Number(text);
  const size = options.size === undefined ? null : /^(\d+)x(\d+)$/.exec(options.size);
  if (options.size !== undefined && !size)
    throw new CodedError('REQUEST_INVALID', `size: '${options.size}' is not WIDTHxHEIGHT`);
  const request = {
    prompt,
    negativePrompt: options.negative,
    width: size ? Number(size[1]) : undefined,
    height: size ? Number(size[2]) : undefined,
    numInferenceSteps: number(options.steps),
    trueCfgScale: number(options.cfg),
    seed: number(options.seed),
    priority: number(options.priority),
  };
  return Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined));
}

/** Shows the progress of a job until it has ended. */
function watchJob({ link }: Client, submitted: Job, watcher: Listener): Promise<Job> {
  const bar = process.stderr.isTTY
    ? new progress.SingleBar({ format: '{state} [{bar}] {value}/{total} steps' }, progress.Presets.legacy)
    : null;
  bar?.start(submitted.steps, 0, { state: 'waiting' });
  return new Promise<Job>((resolve, reject) => {
    const end = (job: Job) => {
      if (job.status === 'done') bar?.update(job.steps, { state: 'done   ' });
      bar?.stop();
      resolve(job);
    };
    link.onClose = () => {
      bar?.stop();
      reject(
        new CodedError(
          'LINK_LOST',
          `the supervisor went away; job ${submitted.id} is kept and goes on when it is back`,
        ),
      );
    };
    watcher.workerFailed = (reason) => {
      bar?.stop();
      reject(workerGivenUp(reason));
    };
    watcher.event = (event) => {
      if (!('jobId' in event) || event.jobId !== submitted.id) return;
      if (event.type === 'step' || event.type === 'running') bar?.update(event.step, { state: 'drawing' });
      if (event.type === 'requeued') bar?.update(event.step, { state: 'waiting' });
      if ('job' in event && isTerminal(event.job.status)) end(event.job);
    };
    // It may have ended before we listened.
    watcher.missed = () =>
      void link.request('getJob', { id: submitted.id }).then((job) => isTerminal(job.status) && end(job), reject);
    watcher.missed();
  });
}

async function copyPicture({ link, welcome }: Client, { id }: JobImage, output: string): Promise<void> {
  const { file } = await link.request('findImage', { id });
  try {
    copyFileSync(join(welcome.dataDir, file), output);
  } catch (cause) {
    throw new CodedError('OUTPUT_UNWRITABLE', `${output}: ${(cause as Error).message}`, { cause });
  }
}

/** Ends in any case: a supervisor that has gone away meanwhile cannot be told. */
function cancel({ link }: Client, id: string): void {
  const end = () => process.exit(INTERRUPTED);
  link.request('cancelJob', { id, ifQueued: false }).then(end, end);
}
