/**
 * What ten thousand dead children leave behind in a supervisor: resident memory and descriptors, before and after, as JSON.
 * The children are `false`, so that the machinery around them is what is measured. usage: node --expose-gc child-restarts.js [COUNT]
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const COUNT = Number(process.argv[2] ?? 10_000);
/** Caches, JIT and pools are filled by then. */
const WARM_UP = 500;

const { Processes } = await import('@qwen-supervisor/supervisor/processes/processes');
const { CrashLog } = await import('@qwen-supervisor/supervisor/records/crash-log');
const { EventLog } = await import('@qwen-supervisor/supervisor/records/event-log');
const { openLog } = await import('@qwen-supervisor/supervisor/records/log');

process.execPath = '/bin/false';
const dataDir = mkdtempSync(join(tmpdir(), 'qwen-supervisor-bench-'));
mkdirSync(join(dataDir, 'logs'));
const [crashes, events] = [new CrashLog(dataDir), new EventLog()];
const { logger: log } = openLog(join(dataDir, 'logs/supervisor.log'), 'fatal');

let exited;
const processes = new Processes({ socketPath: () => '/nowhere', dataDir, log }, (_child, exit) => exited(exit));

async function restart(times) {
  for (let i = 0; i < times; i++) {
    const exit = await new Promise((resolve) => {
      exited = resolve;
      processes.spawn({ name: 'api', number: i }, {}, []);
    });
    const words = await processes.lastWords('api');
    const crash = { at: '', child: 'api', pid: 1, cause: 'crashed', ...exit, ...words };
    crashes.add(crash);
    events.publish({ type: 'crash', crash });
  }
}

const measure = () => {
  globalThis.gc?.();
  return { rss: process.memoryUsage.rss(), descriptors: readdirSync('/proc/self/fd').length };
};
await restart(WARM_UP);
const before = measure();
await restart(COUNT);
const after = measure();
crashes.close();
rmSync(dataDir, { recursive: true });
process.stdout.write(`${JSON.stringify({ before, after })}\n`);
