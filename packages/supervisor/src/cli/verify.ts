import type { ModelAnswer } from '@qwen-supervisor/protocol/answers';
import { CodedError, toCodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { type Finding, fail, findingLine, pass } from '../doctor/finding.js';
import { hasColours } from '../records/log-line.js';
import {
  APIS,
  eventsUntil,
  fetchOk,
  get,
  jobEnd,
  pictureOfJob,
  pixelsOf,
  requireSize,
  type Server,
  smallWish,
  submit,
  type Wish,
} from '../verify/apis.js';
import { startScratchSystem } from '../verify/scratch-system.js';
import { explained } from './client.js';
import { print, printPainted } from './printer.js';
import { type Settings, withSettings } from './settings.js';
import { whileWaiting } from './while-waiting.js';

/** Steps of the picture in which the worker is killed: enough to be in the middle of it. */
const STEPS_TO_KILL_IN = 12;

export function addVerify(program: Command): void {
  withSettings(program.command('verify'))
    .description('start a whole system in a scratch folder, draw through every API, kill its worker, and look')
    .option('--url <url>', 'verify the server that runs there instead; nothing is killed')
    .option('--key <key>', 'API key of that server; QWEN_SUPERVISOR_KEY does the same, and shows it to nobody')
    .option('--json', 'print one JSON object')
    .action(async ({ json, url, key, ...settings }: Settings) => {
      const report = new Report(!json);
      if (url === undefined) await verifyOwn(report, settings);
      else
        await verifyServer(report, {
          url: url.replace(/\/$/, ''),
          key: key ?? process.env.QWEN_SUPERVISOR_KEY ?? null,
        });
      const failed = report.findings.filter(({ result }) => result === 'fail').length;
      if (json) print(JSON.stringify({ findings: report.findings, failed }));
      if (failed > 0) throw new CodedError('VERIFY_FAILED', `${failed} of ${report.findings.length} failed`);
    });
}

/** What was seen, told as it is. */
class Report {
  readonly findings: Finding[] = [];
  readonly #tells: boolean;

  constructor(tells: boolean) {
    this.#tells = tells;
  }

  /** `look` says what it has seen; what it throws is a failure. Null then. */
  async see<T>(about: string, look: () => Promise<{ says: string; value: T }>): Promise<T | null> {
    const startMs = performance.now();
    try {
      const { says, value } = await whileWaiting(() => about, look());
      this.#add(pass(about, `${says}, ${((performance.now() - startMs) / 1000).toFixed(1)} s`));
      return value;
    } catch (error) {
      const { code, message, hint } = toCodedError(error);
      this.#add(fail(about, code === 'VERIFY_FAILED' ? message : `${code}: ${message}`, hint));
      return null;
    }
  }

  #add(finding: Finding): void {
    this.findings.push(finding);
    if (this.#tells) printPainted(findingLine(finding, hasColours()));
  }
}

async function verifyOwn(report: Report, settings: Settings): Promise<void> {
  const { config } = explained(settings);
  const system = await report.see('start', async () => {
    const value = await startScratchSystem(config);
    return { says: `listens on ${value.url}`, value };
  });
  if (!system) return;
  try {
    const isReady = await report.see('load', async () => {
      await system.ready();
      return { says: 'the model is loaded', value: true };
    });
    if (!isReady) return;
    const server = { url: system.url, key: null };
    const wish = await verifyServer(report, server);
    if (wish) await verifyResume(report, server, wish, () => system.pidOf('inference'));
    await report.see('stop', async () => {
      await system.stop();
      const left = system.leftOvers();
      if (left.length > 0) throw new CodedError('VERIFY_FAILED', `it has left ${left.join(', ')}`);
      return { says: 'ended with code 0, and left nothing behind', value: null };
    });
  } finally {
    system.remove();
  }
}

/** Draws the same picture through every API. Null where not even its model is told. */
async function verifyServer(report: Report, server: Server): Promise<Wish | null> {
  const model = await report.see('model', async () => {
    const { models } = await get<{ models: ModelAnswer[] }>(server, '/api/v1/models');
    const [value] = models;
    if (!value) throw new CodedError('VERIFY_FAILED', 'the server has no model');
    return { says: value.id, value };
  });
  if (!model) return null;
  const wish = smallWish(model);
  const pictures = new Map<string, string>();
  for (const [name, draw] of Object.entries(APIS)) {
    await report.see(name, async () => {
      const { png, jobId } = await draw(server, wish);
      requireSize(png, wish);
      pictures.set(name, pixelsOf(png));
      // The gallery is not ours.
      await fetchOk(server, `/api/v1/jobs/${jobId}`, { method: 'DELETE' });
      return { says: `drew ${wish.width}x${wish.height}`, value: null };
    });
  }
  await report.see('same picture', async () => {
    if (new Set(pictures.values()).size > 1)
      throw new CodedError(
        'VERIFY_FAILED',
        `the same seed gave different pictures: ${[...pictures.keys()].join(', ')}`,
      );
    return { says: `the same seed gave the same pixels through ${pictures.size} APIs`, value: null };
  });
  await report.see('page', async () => {
    const html = await (await fetchOk(server, '/app/')).text();
    if (!html.includes('<base ')) throw new CodedError('VERIFY_FAILED', 'what is at /app/ is not the page');
    return { says: 'is served', value: null };
  });
  return wish;
}

/** The worker dies in mid-picture; the picture becomes the one that it would have been. */
async function verifyResume(report: Report, server: Server, wish: Wish, pidOf: () => Promise<number>): Promise<void> {
  const { steps, scale, ...rest } = wish;
  // A distilled model draws in the steps that it was made for.
  const request = { ...rest, numInferenceSteps: scale > 1 ? STEPS_TO_KILL_IN : steps, trueCfgScale: scale };
  const whole = await report.see('whole picture', async () => {
    const job = await jobEnd(server, (await submit(server, request)).id);
    return { says: `${job.steps} steps`, value: pixelsOf((await pictureOfJob(server, job)).png) };
  });
  await report.see('resume', async () => {
    const { id } = await submit(server, request);
    await eventsUntil(server, id, (events) => /^event: step$/m.test(events));
    process.kill(await pidOf(), 'SIGKILL');
    const job = await jobEnd(server, id);
    const { png } = await pictureOfJob(server, job);
    if (job.attempts < 2) throw new CodedError('VERIFY_FAILED', 'the picture was done before the worker was killed');
    if (job.resumedAtStep === null) throw new CodedError('VERIFY_FAILED', `it began anew: ${job.startedOverReason}`);
    if (whole !== null && pixelsOf(png) !== whole)
      throw new CodedError('VERIFY_FAILED', 'the picture is not the one that it would have been');
    return { says: `the worker was killed; went on at step ${job.resumedAtStep} to the same pixels`, value: null };
  });
}
