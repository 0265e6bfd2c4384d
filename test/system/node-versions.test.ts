/** The program under the Nodes that are mended: the whole system is started, drawn with and killed in under each. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { expect, test } from 'vitest';
import { REPOSITORY, temporaryFolder } from '../fixture-files.js';

const NODE = `node-linux-${process.arch}`;

/** From npm; null where it cannot be had. */
async function installed(major: number): Promise<string | null> {
  const folder = temporaryFolder();
  const args = ['install', '--no-audit', '--no-fund', '--prefix', folder, `${NODE}@${major}`];
  await execa('npm', args, { reject: false, timeout: 120_000 });
  const path = join(folder, 'node_modules', NODE, 'bin/node');
  return existsSync(path) ? path : null;
}

test.for([22, 24, 26])('Node %d draws, resumes and stops, and warns of nothing', async (major, { skip }) => {
  const node = await installed(major);
  if (node === null) {
    expect(process.env.CI, `Node ${major} cannot be had, and in CI it must`).not.toBe('true');
    return skip(`Node ${major} cannot be had here`);
  }
  const bin = join(REPOSITORY, 'bin/qwen-supervisor.js');
  const { stdout, stderr, exitCode } = await execa(node, [bin, 'verify', '--json'], { reject: false });
  const { findings } = JSON.parse(stdout) as { findings: { result: string }[] };
  expect(findings.filter(({ result }) => result !== 'pass')).toEqual([]);
  expect(stderr).toBe('');
  expect(exitCode).toBe(0);
  const { stdout: looks } = await execa(node, [bin, 'doctor', '--json', '--port', '0'], { reject: false });
  expect(JSON.parse(looks).findings[0]).toMatchObject({ about: 'Node', result: 'pass' });
});
