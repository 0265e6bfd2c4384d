/** Under a real systemd: what it is told, what it starts anew and what it leaves to us. */
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { SystemStatus } from '@qwen-supervisor/protocol/status';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { SYSTEMD } from '../debian-packages.js';
import { REPOSITORY } from '../fixture-files.js';
import { NASTY, processesWith, until } from './product.js';
import { canManage, type Manager, PROGRAM, startManager } from './real-systemd.js';

const SERVICE = 'qwen-supervisor.service';

describe.skipIf(!isThere())('under systemd', () => {
  let manager: Manager;
  let url: string;
  let port: number;
  let config: string;
  let dataDir: string;
  beforeAll(async () => {
    manager = await startManager(mkdtempSync(join(tmpdir(), 'qwen-supervisor-test-')));
    port = await freePort();
    url = `http://127.0.0.1:${port}`;
    config = join(manager.home, 'qwen.toml');
    dataDir = join(manager.home, '.local/share/qwen-supervisor');
    writeFileSync(config, `port = ${port}\n`);
  });
  afterAll(async () => {
    await manager?.end();
    rmSync(manager.home, { recursive: true, force: true });
  });

  const cli = (...args: string[]) => manager.run(...PROGRAM, ...args);
  const install = async (...flags: string[]) => {
    const installed = await cli('service', 'install', '--config', config, ...flags);
    expect(installed).toMatchObject({ exitCode: 0 });
    return installed.stdout;
  };
  const property = (name: string) => manager.property(SERVICE, name);
  const worker = async () => {
    const { children } = (await (await fetch(`${url}/api/v1/status`)).json()) as SystemStatus;
    return children[0];
  };
  const canDraw = () => until(async () => ((await fetch(`${url}/readyz`).catch(() => null))?.ok ? true : null));
  const submit = async (request: object) => {
    const response = await fetch(`${url}/api/v1/jobs`, { method: 'POST', body: JSON.stringify(request) });
    return (await response.json()) as { id: string };
  };
  const job = async (id: string) => (await (await fetch(`${url}/api/v1/jobs/${id}`)).json()) as Job;
  const inStep = (id: string) => until(async () => (((await job(id).catch(() => null))?.step ?? 0) > 2 ? true : null));
  /** @returns the process that it has met */
  const signal = async (name: string, pid: string | number | null | undefined) => {
    expect(Number(pid), 'a process').toBeGreaterThan(1);
    await manager.run('kill', `-${name}`, String(pid));
    return String(pid);
  };
  const dropIn = async (text: string) => {
    const folder = join(manager.home, '.config/systemd/user', `${SERVICE}.d`);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'test.conf'), text);
    await manager.systemctl('daemon-reload');
  };

  test('install writes a unit that systemd accepts, and comes back when requests are taken', async () => {
    expect(await install()).toContain(`your service runs: http://localhost:${port}/app/`);
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    expect(await property('ActiveState')).toBe('active');
    const unit = join(manager.home, '.config/systemd/user', SERVICE);
    expect(await manager.run('systemd-analyze', '--user', 'verify', unit)).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await manager.systemctl('is-enabled', SERVICE)).toBe('enabled');
    await canDraw();
    await until(async () => ((await property('StatusText')) === 'ready' ? true : null));
    const { stdout, exitCode } = await cli('service', 'status');
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^active \(running\): ready\nprocess \d+, 0 restarts by systemd\n/);
  });

  test('a worker that dies is restarted by the supervisor, and systemd has nothing to do with it', async () => {
    const main = await property('MainPID');
    const { id } = await submit({ prompt: 'a fox', numInferenceSteps: 300 });
    await inStep(id);
    await signal('KILL', (await worker())?.pid);
    await until(async () => ((await job(id)).status === 'done' ? true : null));
    expect(await property('MainPID')).toBe(main);
    expect(await property('NRestarts')).toBe('0');
  });

  test('the journal has the log, with its levels', async () => {
    const at = async (priority: string) => (await manager.run('journalctl', '-o', 'cat', '-p', priority)).stdout;
    await until(async () => (/^inference +starting: ended by SIGKILL/m.test(await at('warning')) ? true : null));
    expect(await at('info')).toMatch(/^supervisor +listening on /m);
    expect(await at('warning')).not.toContain('listening on');
  });

  test('a supervisor that is killed is started again by systemd, and the job goes on at its step', async () => {
    const { id } = await submit({ prompt: 'a cat', numInferenceSteps: 600 });
    await inStep(id);
    const main = await signal('KILL', await property('MainPID'));
    await until(async () => ((await property('NRestarts')) === '1' ? true : null));
    const done = await until(async () => {
      const now = await job(id).catch(() => null);
      return now?.status === 'done' ? now : null;
    });
    expect(done.resumedAtStep).toBeGreaterThan(1);
    expect(await property('MainPID')).not.toBe(main);
  });

  test('a reload takes what has changed, and keeps the process', async () => {
    const main = await property('MainPID');
    appendFileSync(config, 'max-steps = 7\n');
    expect(await manager.run('systemctl', '--user', 'reload', SERVICE)).toMatchObject({ exitCode: 0 });
    await until(async () => ((await property('ActiveState')) === 'active' ? true : null));
    const refused = await submit({ prompt: 'a fox', numInferenceSteps: 8 });
    expect(refused).toMatchObject({ error: { code: 'REQUEST_INVALID' } });
    expect(await property('MainPID')).toBe(main);
    await until(async () => ((await property('StatusText')) === 'ready' ? true : null));
  });

  test('a supervisor that stands still is ended by the watchdog, and started again', async () => {
    await dropIn('[Service]\nWatchdogSec=8\n');
    expect(await manager.run('systemctl', '--user', 'restart', SERVICE)).toMatchObject({ exitCode: 0 });
    const main = await signal('STOP', await property('MainPID'));
    await until(async () => ((await property('NRestarts')) === '1' ? true : null));
    expect(await property('MainPID')).not.toBe(main);
    await canDraw();
    // The journal may come a moment later than what it tells of.
    const told = async () => (await manager.run('journalctl', '-o', 'cat', '-g', 'Watchdog timeout')).stdout;
    await until(async () => ((await told()).includes('Watchdog timeout') ? true : null));
  });

  test('a stop leaves no process behind', async () => {
    await manager.systemctl('stop', SERVICE);
    expect(await property('Result')).toBe('success');
    expect(processesWith(`QWEN_SUPERVISOR_CHILD_DATA_DIR=${dataDir}`)).toEqual([]);
    expect(await cli('service', 'status')).toMatchObject({ exitCode: 74 });
  });

  test('a load that is slow is not cut off by the time that systemd gives a start', async () => {
    const env = { ...NASTY, NASTY_LOAD: 'slow' };
    const lines = Object.entries(env).map(([name, value]) => `Environment="${name}=${value}"`);
    await dropIn(
      ['[Service]', 'TimeoutStartSec=8', 'Environment=QWEN_SUPERVISOR_SYSTEMD_READY=model', ...lines].join('\n'),
    );
    const started = manager.run('systemctl', '--user', 'start', SERVICE);
    await until(async () => (/^loading the model, \d+ %$/.test(await property('StatusText')) ? true : null));
    expect(await property('ActiveState')).toBe('activating');
    expect(await started).toMatchObject({ exitCode: 0 });
    expect((await fetch(`${url}/readyz`)).status).toBe(200);
    expect(await property('NRestarts')).toBe('0');
    await dropIn('');
  });

  test('with a socket unit nobody is refused while the whole service is started anew', async () => {
    await install('--socket');
    await canDraw();
    let refused = 0;
    let answered = 0;
    let isOver = false;
    const asking = (async () => {
      while (!isOver) {
        // A connection each: one that is open goes with the process that has it.
        const response = await fetch(`${url}/healthz`, { headers: { connection: 'close' } }).catch((error) => error);
        if (response instanceof Error && response.cause && 'code' in (response.cause as object)) {
          if ((response.cause as { code: string }).code === 'ECONNREFUSED') refused++;
        } else answered++;
      }
    })();
    const main = await property('MainPID');
    await manager.systemctl('restart', SERVICE);
    await canDraw();
    isOver = true;
    await asking;
    expect(refused).toBe(0);
    expect(answered).toBeGreaterThan(1);
    expect(await property('MainPID')).not.toBe(main);
  });

  test('a supervisor that was started by hand is not pushed aside', async () => {
    await manager.systemctl('stop', SERVICE, 'qwen-supervisor.socket');
    const started = manager.run(...PROGRAM, 'start', '--config', config, '--data-dir', dataDir);
    await canDraw();
    const { stderr, exitCode } = await cli('service', 'install');
    expect(stderr).toMatch(/ALREADY_RUNNING: .* is in use by process \d+, .*: stop it first/);
    expect(exitCode).toBe(75);
    await cli('stop');
    expect((await started).exitCode).toBe(0);
  });

  test('what is not said at a later installation is as it was', async () => {
    await install('--max-queued', '77');
    expect(await install()).toContain('--max-queued 77');
    const { stdout } = await cli('service', 'print');
    expect(stdout).toContain('qwen-supervisor.socket');
    expect(stdout).toContain(`start --config ${config} --data-dir`);
    await canDraw();
  });

  test("what is installed is removed again; the data stays, and another's unit is let be", async () => {
    expect(await cli('service', 'uninstall')).toMatchObject({ exitCode: 0 });
    const folder = join(manager.home, '.config/systemd/user');
    expect(existsSync(join(folder, SERVICE))).toBe(false);
    expect(existsSync(join(folder, 'qwen-supervisor.socket'))).toBe(false);
    expect(existsSync(join(dataDir, 'jobs.db'))).toBe(true);
    expect(await cli('service', 'uninstall')).toMatchObject({ exitCode: 66 });
    writeFileSync(join(folder, SERVICE), '[Service]\nExecStart=/bin/true\n');
    const refused = await cli('service', 'install');
    expect(refused.stderr).toContain('SERVICE_FOREIGN');
    expect(refused.exitCode).toBe(91);
  });

  test('the unit for a whole machine shuts the service off, and it draws all the same', async () => {
    // Neither in a home nor where each service has its own.
    const folder = mkdtempSync('/var/lib/qwen-supervisor-test-');
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const flags = ['--system', '--as', 'nobody', '--port', String(port), '--data-dir', folder];
    const printed = await cli('service', 'print', ...flags);
    expect(printed.exitCode).toBe(0);
    const unit = join(manager.home, SERVICE);
    writeFileSync(unit, printed.stdout);
    const security = await manager.run('systemd-analyze', 'security', '--offline=yes', '--threshold=40', unit);
    expect(security).toMatchObject({ exitCode: 0 });
    // Not a user who may not read this checkout; all else is as it is for the machine.
    writeFileSync(join(manager.home, '.config/systemd/user', SERVICE), printed.stdout.replace(/^User=.*$/m, ''));
    // A checkout below /tmp would be hidden.
    await dropIn(`[Service]\nBindReadOnlyPaths=${REPOSITORY}\n`);
    await manager.systemctl('daemon-reload');
    expect(await manager.run('systemctl', '--user', 'start', SERVICE)).toMatchObject({ exitCode: 0 });
    const { id } = await submit({ prompt: 'a fox', numInferenceSteps: 2 });
    await until(async () => ((await job(id)).status === 'done' ? true : null));
    await manager.systemctl('stop', SERVICE);
  });
});

/** In CI it must be installed; where name spaces are refused it cannot be run. */
function isThere(): boolean {
  if (process.env.CI === 'true') expect(existsSync(SYSTEMD), 'systemd cannot be had, and in CI it must').toBe(true);
  return canManage();
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
