/**
 * node-ipc has been poisoned twice. Exactly one version is used, and the bytes of it and of all that it pulls in are
 * pinned by hash: a lock file that says anything else fails here. See docs/decisions/0003-node-ipc.md.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { REPOSITORY } from '../fixture-files.js';

const PINNED: Record<string, [version: string, sha512: string]> = {
  'node-ipc': ['14.0.0', 'd5+aogND4Gk6aQkW5KCibliM4Mn12+isHXt8wFghO4Bn0gBSnev3TXJWQ4eEnzrlh5gCG+nwQEZwyayeDtQxQA=='],
  'event-pubsub': ['6.1.1', '08nRrPDOAI5QtM/iQRVIs9DiWyFiyG8VCKf/4i71xQAurXm07exshjSY80wSHJMsHPw9cpUxzJPpXjMyHeBTZw=='],
  'js-message': ['3.1.0', 'k9iKFwzyAbz8gDJXIvIohSBaXeG3PvFzVwUccaDf0vv8LbEMpOvUfpyE6MGrlovliFdhTBUcIvXfSxOZkorWhA=='],
  'js-queue': ['3.1.0', 'qENB7XiNpXyxg6132Bwz08uq8GQyaVhD53O41d1F45aCHbKD82bkgZYHWqBGsWggDy8KuY5mPzG7oDnUV7Mn8A=='],
  'strong-type': ['2.0.0', 'HHrY9qYC7yn+5mlewiI3k9RQM9gZqGQsqbomZcd10Ks0h4RlX01nnkWbCe4AsVPCI6KaFvpkWm1nHMD+Ykup6g=='],
  'easy-stack': ['2.1.0', 'ZpUD5AJeKhRic1RrajfGKuLl721bCeIpnAj1i7BtlC1XX5Mb52ku3e9pDWryV32yndd28ZyqdVsVcBuI7WY2Iw=='],
};

interface Locked {
  version: string;
  integrity: string;
  dependencies?: Record<string, string>;
  peerDependencies?: Record<string, string>;
}

const { packages } = JSON.parse(readFileSync(join(REPOSITORY, 'package-lock.json'), 'utf8')) as {
  packages: Record<string, Locked>;
};

test.each(Object.entries(PINNED))('%s is locked to its one vetted version', (name, [version, sha512]) => {
  const locked = Object.entries(packages).filter(([path]) => path.endsWith(`node_modules/${name}`));
  expect(locked.map(([, entry]) => [entry.version, entry.integrity])).toEqual([[version, `sha512-${sha512}`]]);
});

test('node-ipc pulls in nothing that is not pinned here', () => {
  const needed = new Set(['node-ipc']);
  for (const name of needed) {
    for (const dependency of Object.keys(packages[`node_modules/${name}`]?.dependencies ?? {})) needed.add(dependency);
  }
  expect([...needed].sort()).toEqual(Object.keys(PINNED).sort());
});

test('the package that uses it asks for exactly that version', () => {
  const { dependencies } = JSON.parse(readFileSync(join(REPOSITORY, 'package.json'), 'utf8'));
  expect(dependencies['node-ipc']).toBe('14.0.0');
});

test('every dependency of ours is pinned exactly', () => {
  const own = Object.entries(packages).filter(([path]) => path === '' || /^packages\/[\w-]+$/.test(path));
  const loose = own.flatMap(([path, entry]) =>
    Object.entries({ ...entry.dependencies, ...entry.peerDependencies })
      .filter(([, range]) => !/^\d+\.\d+\.\d+$/.test(range))
      .map(([name]) => `${path}: ${name}`),
  );
  expect(loose).toEqual([]);
});
