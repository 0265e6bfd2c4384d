/** The program under the Nodes that are mended: the whole system is started, drawn with and killed in under each. */
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { expect, test } from 'vitest';
import { REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { installNode } from './other-node.js';

const NODES = [22, 24, 26];

/** Those of every package, and not those of the repository's own texts. */
const SHORT = ['files', 'protocol', 'ipc', 'supervisor', 'model', 'inference', 'api'];

test('the short tests pass under the newest Node', async ({ skip }) => {
  const newest = Math.max(...NODES);
  const node = await installNode(newest, temporaryFolder());
  if (node === null) return skip(`Node ${newest} cannot be had here`);
  const vitest = join(REPOSITORY, 'node_modules/vitest/vitest.mjs');
  const folders = SHORT.map((name) => `test/${name}/`);
  const { stdout, stderr, exitCode } = await execa(node, [vitest, 'run', '--project', 'unit', ...folders], {
    cwd: REPOSITORY,
    reject: false,
    // Vitest tells its children whose they are.
    env: { SHORT: '1', PATH: `${dirname(node)}:${process.env.PATH}`, VITEST: undefined, VITEST_WORKER_ID: undefined },
  });
  expect(exitCode, `${stdout.slice(-5000)}${stderr.slice(-2000)}`).toBe(0);
  expect(stdout).toMatch(/^[1-9]\d{2,} passed, 0 failed$/m);
});

test.for(NODES)('Node %d draws, resumes and stops, and warns of nothing', async (major, { skip }) => {
  const node = await installNode(major, temporaryFolder());
  if (node === null) return skip(`Node ${major} cannot be had here`);
  const bin = join(REPOSITORY, 'bin/qwen-supervisor.js');
  const { stdout, stderr, exitCode } = await execa(node, [bin, 'verify', '--json'], { reject: false });
  const { findings } = JSON.parse(stdout) as { findings: { result: string }[] };
  expect(findings.filter(({ result }) => result !== 'pass')).toEqual([]);
  expect(stderr).toBe('');
  expect(exitCode).toBe(0);
  const { stdout: looks } = await execa(node, [bin, 'doctor', '--json', '--port', '0'], { reject: false });
  expect(JSON.parse(looks).findings[0]).toMatchObject({ about: 'Node', result: 'pass' });
});
