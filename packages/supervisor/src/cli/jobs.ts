import { CodedError } from '@qwen-supervisor/protocol/errors';
import { isTerminal, JOB_STATUSES, type Job, type JobStatus } from '@qwen-supervisor/protocol/job';
import type { Command } from 'commander';
import { ask, countOf, withDataDir } from './client.js';
import { print } from './printer.js';

interface Asked {
  dataDir?: string;
  json?: boolean;
}

/** Jobs of one question: what is more is asked for in pages. */
const PAGE = 100;
const PROMPT_WIDTH = 50;

export function addJobs(program: Command): void {
  const jobs = program.command('jobs').description('list, show, cancel, retry and move jobs');

  withDataDir(jobs.command('list'))
    .description('jobs, newest first')
    .option('-n, --lines <count>', 'jobs to show', '20')
    .option('--status <status>', `only those that are ${JOB_STATUSES.join(', ')}`)
    .option('--json', 'one JSON object per line')
    .action(async (options: Asked & { lines: string; status?: string }) => {
      const found = await list(options, statusOf(options.status), countOf(options.lines));
      if (options.json) for (const job of found) print(JSON.stringify(job));
      else print(found.length === 0 ? 'no jobs' : found.map(line).join('\n'));
    });

  withDataDir(jobs.command('show'))
    .description('everything that is known of a job')
    .argument('<id>')
    .option('--json', 'as JSON')
    .action(async (id: string, options: Asked) => {
      const job = await ask(options, ({ link }) => link.request('getJob', { id }));
      print(options.json ? JSON.stringify(job, null, 2) : describe(job));
    });

  withDataDir(jobs.command('cancel'))
    .description('cancel jobs by their ids, or all that are queued, or the running one')
    .argument('[ids...]')
    .option('--queued', 'all that are queued')
    .option('--running', 'the running one')
    .option('--json', 'print one JSON object')
    .action(async (ids: string[], options: Asked & { queued?: boolean; running?: boolean }) => {
      if (ids.length === 0 && !options.queued && !options.running)
        throw new CodedError('USAGE_INVALID', 'which jobs? Give their ids, --queued or --running');
      const cancelled = await ask(options, async ({ link }) => {
        let count = 0;
        for (const id of ids) {
          const job = await link.request('cancelJob', { id, ifQueued: false });
          // A running one ends within a step.
          if (job.status === 'cancelled' || !isTerminal(job.status)) count++;
        }
        if (options.queued) count += (await link.request('cancelJobs', { scope: 'queued' })).cancelled;
        if (options.running) count += (await link.request('cancelJobs', { scope: 'running' })).cancelled;
        return count;
      });
      print(options.json ? JSON.stringify({ cancelled }) : `${cancelled} cancelled`);
    });

  withDataDir(jobs.command('retry'))
    .description('a new job with the request of one that failed or was cancelled')
    .argument('<id>')
    .option('--json', 'the new job as JSON')
    .action(async (id: string, options: Asked) => {
      const job = await ask(options, ({ link }) => link.request('retryJob', { id, idempotency: null, owner: null }));
      print(options.json ? JSON.stringify(job) : `${job.id} is queued`);
    });

  withDataDir(jobs.command('move'))
    .description('change the place of a queued job')
    .argument('<id>')
    .option('--first', 'before all others')
    .option('--before <id>', 'before this one')
    .option('--priority <number>', 'behind all others of this priority; higher ones go first')
    .option('--json', 'the job as JSON')
    .action(async (id: string, options: Asked & { first?: boolean; before?: string; priority?: string }) => {
      const wishes = [options.first, options.before, options.priority].filter((wish) => wish !== undefined);
      if (wishes.length !== 1)
        throw new CodedError('USAGE_INVALID', 'where to? Give one of --first, --before and --priority');
      const job = await ask(options, async ({ link }) => {
        const [first] = options.first ? (await link.request('waitingJobs', { limit: 1 })).jobs : [];
        if (first?.id === id) return first;
        const before = options.before ?? first?.id ?? null;
        return link.request('moveJob', { id, before, priority: before === null ? priorityOf(options.priority) : null });
      });
      print(options.json ? JSON.stringify(job) : `${job.id} is number ${job.position} in the queue`);
    });

  async function list(options: Asked, status: JobStatus | null, count: number): Promise<Job[]> {
    const filter = { status, source: null, group: null, ids: null };
    return ask(options, async ({ link }) => {
      const found: Job[] = [];
      for (let cursor: number | null = null; found.length < count; ) {
        const limit = Math.min(PAGE, count - found.length);
        const page: { jobs: Job[]; next: number | null } = await link.request('listJobs', { filter, cursor, limit });
        found.push(...page.jobs);
        if (page.next === null) break;
        cursor = page.next;
      }
      return found;
    });
  }
}

/** @throws CodedError USAGE_INVALID */
function statusOf(text: string | undefined): JobStatus | null {
  if (text === undefined) return null;
  const status = JOB_STATUSES.find((one) => one === text);
  if (!status) throw new CodedError('USAGE_INVALID', `--status: '${text}' is none of ${JOB_STATUSES.join(', ')}`);
  return status;
}

/** @throws CodedError USAGE_INVALID */
function priorityOf(text: string | undefined): number {
  const priority = Number(text);
  if (!Number.isInteger(priority)) throw new CodedError('USAGE_INVALID', `--priority: '${text}' is no whole number`);
  return priority;
}

function line({ id, status, step, steps, position, prompt, error }: Job): string {
  const where = position === null ? (status === 'running' ? `${step}/${steps}` : '') : `#${position}`;
  const text = prompt.replace(/\s+/g, ' ');
  const shown = text.length > PROMPT_WIDTH ? `${text.slice(0, PROMPT_WIDTH - 1)}…` : text;
  return `${id}  ${status.padEnd(9)} ${where.padEnd(8)} ${shown}${error ? `  ${error.code}` : ''}`;
}

function describe(job: Job): string {
  const { width, height, numInferenceSteps, trueCfgScale, seed, step, steps, attempts, images, error } = job;
  const { devices, deviceReason, machine } = job;
  const facts: [string, string | number | null][] = [
    ['id', job.id],
    ['status', job.status],
    ['prompt', job.prompt],
    ['negative', job.negativePrompt.trim() || null],
    ['size', `${width}x${height}`],
    ['steps', `${step} of ${steps}${steps === numInferenceSteps ? '' : ` (${numInferenceSteps} asked for)`}`],
    ['guidance', trueCfgScale],
    ['seed', seed],
    ['drawn over', job.initImage && `${job.initImage}, ${job.strength}`],
    ['place', job.position],
    ['priority', job.priority],
    ['group', job.group],
    ['attempts', attempts],
    ['went on at', job.resumedAtStep && `step ${job.resumedAtStep}`],
    ['started over', job.startedOverReason],
    ['model', job.model],
    ['devices', devices.join(', ') || null],
    ['chosen as', deviceReason],
    ['machine', machine],
    ['picture', images[0]?.url ?? null],
    ['error', error && `${error.code}: ${error.message}`],
    ['hint', error?.hint ?? null],
    ['asked for', job.createdAt],
    ['ended', job.finishedAt],
  ];
  const known = facts.filter(([, value]) => value !== null);
  return known.map(([name, value]) => `${name.padEnd(13)} ${value}`).join('\n');
}
