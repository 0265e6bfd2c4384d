/** The program under the Nodes that are mended: the whole system is started, drawn with and killed in under each. */
import { join } from 'node:path';
import { execa } from 'execa';
import { expect, test } from 'vitest';
import { REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { installNode } from './other-node.js';

test.for([22, 24, 26])('Node %d draws, resumes and stops, and warns of nothing', async (major, { skip }) => {
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
