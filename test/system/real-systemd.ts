/**
 * A real systemd: the manager of a user, in name spaces of its own, with a journal. Where the machine was not booted by
 * systemd this is the one that there is.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa, execaSync } from 'execa';
import { SYSTEMD } from '../debian-packages.js';
import { REPOSITORY } from '../fixture-files.js';
import { until } from './product.js';

/** What is mounted and started; the shell is the first process of the name space, and takes those without a parent. */
const BOOT = `
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/systemd/journal /run/log/journal "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
# What is put over files that a service may not see; the manager of a booted machine makes these.
mkdir -p /run/systemd/inaccessible/dir
cd /run/systemd/inaccessible && touch reg sock chr blk fifo
/lib/systemd/systemd-journald &
# A manager that finds no journal writes to the console for good.
until [ -S /run/systemd/journal/socket ] && [ -S /run/systemd/journal/stdout ]; do sleep 0.05; done
/lib/systemd/systemd --user --log-target=journal &
wait`;

export interface Manager {
  home: string;
  /** Runs a command beside the units; its output and its exit code. */
  run(program: string, ...args: string[]): Promise<{ stdout: string; stderr: string; exitCode: number | undefined }>;
  systemctl(...args: string[]): Promise<string>;
  /** One property of a unit. */
  property(unit: string, name: string): Promise<string>;
  /** Ends it, and everything that it has started. */
  end(): Promise<void>;
}

/** Whether there can be one here. */
export function canManage(): boolean {
  const probe = 'command -v systemctl unshare nsenter && unshare -fpm --mount-proc true';
  return (
    process.getuid?.() === 0 && existsSync(SYSTEMD) && execaSync('sh', ['-c', probe], { reject: false }).exitCode === 0
  );
}

export async function startManager(home: string): Promise<Manager> {
  mkdirSync(join(home, '.config/systemd/user'), { recursive: true });
  const env = { HOME: home, XDG_RUNTIME_DIR: '/run/user/0', PATH: process.env.PATH as string };
  const shell = spawn('unshare', ['-fpm', '--mount-proc', 'sh', '-c', BOOT], { env, stdio: 'ignore' });
  const first = await until(async () => childOf(shell));
  const run: Manager['run'] = async (program, ...args) => {
    const { stdout, stderr, exitCode } = await execa('nsenter', ['-t', first, '-m', '-p', program, ...args], {
      env,
      extendEnv: false,
      reject: false,
    });
    return { stdout, stderr, exitCode };
  };
  const systemctl = async (...args: string[]) => (await run('systemctl', '--user', ...args)).stdout;
  // Units of the distribution may have failed in a machine as bare as this one: that is none of ours.
  await until(async () => (/^(running|degraded)$/.test(await systemctl('is-system-running')) ? true : null));
  return {
    home,
    run,
    systemctl,
    property: async (unit, name) => (await systemctl('show', unit, `--property=${name}`, '--value')).trim(),
    async end() {
      const ended = new Promise((resolve) => shell.once('exit', resolve));
      process.kill(Number(first), 'SIGKILL');
      await ended;
    },
  };
}

function childOf({ pid }: ChildProcess): string | null {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim() || null;
}

/** The program as a user has it. */
export const PROGRAM = [process.execPath, join(REPOSITORY, 'bin/qwen-supervisor.js')] as const;
