/** Nodes other than the one that runs the tests, from npm. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { expect } from 'vitest';

const NODE = `node-linux-${process.arch}`;

/** Into `folder`; null where it cannot be had, which in CI it must. */
export async function installNode(major: number, folder: string): Promise<string | null> {
  const args = ['install', '--no-audit', '--no-fund', '--prefix', folder, `${NODE}@${major}`];
  await execa('npm', args, { reject: false, timeout: 120_000 });
  const path = join(folder, 'node_modules', NODE, 'bin/node');
  if (existsSync(path)) return path;
  expect(process.env.CI, `Node ${major} cannot be had, and in CI it must`).not.toBe('true');
  return null;
}
