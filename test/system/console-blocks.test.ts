/**
 * What the page of the first hour says to type is typed, in its order, by a newcomer with an empty home under a real
 * systemd; and what it says is printed is compared. `…` stands for anything.
 */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { REPOSITORY } from '../fixture-files.js';
import { writeQwenImage, writeSparse } from '../qwen-image-sizes.js';
import { until } from './product.js';
import { canManage, type Manager, startManager } from './real-systemd.js';
import { patternOf, typedIn } from './typed.js';

const TYPED = typedIn('getting-started.md');
const can = canManage();

describe.skipIf(!can)('the first hour', () => {
  let manager: Manager;
  let folder: string;
  let port: number;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'qwen-supervisor-test-'));
    const home = join(folder, 'home');
    mkdirSync(join(folder, 'bin'));
    symlinkSync(join(REPOSITORY, 'bin/qwen-supervisor.js'), join(folder, 'bin/qwen-supervisor'));
    writeQwenImage(join(folder, 'models/Qwen-Image'), writeSparse);
    manager = await startManager(home);
    port = await freePort();
  });
  afterAll(async () => {
    await manager?.end();
    rmSync(folder, { recursive: true, force: true });
  });

  /** The places and the port of this run for those of the page. */
  const here = (text: string) => text.replaceAll('/models/', `${folder}/models/`).replaceAll('8000', String(port));
  const type = (command: string) => {
    const path = `${join(folder, 'bin')}:${process.env.PATH}`;
    const setting = `cd ${manager.home}; export NO_COLOR=1 QWEN_SUPERVISOR_PORT=${port} PATH="${path}"`;
    // From a file: a command must not find its own words among those of other processes.
    const script = join(manager.home, 'typed.sh');
    writeFileSync(script, `exec 2>&1; ${setting}; ${here(command)}\n`);
    return manager.run('bash', script);
  };

  test('there is something to type', () => {
    expect(TYPED.length).toBeGreaterThan(15);
  });

  test.each(TYPED)('$command', async ({ command, printed }) => {
    const expected = patternOf(here(printed));
    // What is asked may still be on its way: a start, a crash that is being written down.
    const isQuestion = /status|crashes/.test(command);
    const stdout = await until(async () => {
      const { stdout: text, exitCode } = await type(command);
      const stdout = `${text}\n`;
      const isAsSaid = printed === '' || expected.test(stdout);
      if (!isQuestion) expect(exitCode === 0 || printed.startsWith('error '), stdout).toBe(true);
      return isAsSaid || !isQuestion ? stdout : null;
    }, 60_000);
    if (printed !== '') expect(stdout).toMatch(expected);
  });
});

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
