import { appendFileSync, closeSync, mkdirSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Crash } from '@qwen-supervisor/protocol/status';
import { CrashLog, readCrashes } from '@qwen-supervisor/supervisor/records/crash-log';
import { RotatingFile } from '@qwen-supervisor/supervisor/records/rotating-file';
import { describe, expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../../fixture-files.js';

describe('a rotating file', () => {
  test('loses no line, keeps as many older files as it should, and goes on after a restart', () => {
    const folder = temporaryFolder();
    const path = join(folder, 'log');
    for (let run = 0; run < 2; run++) {
      const file = new RotatingFile(path, 100, 3, () => '');
      for (let i = 0; i < 15; i++) file.write(`run ${run}, line ${String(i).padStart(2)}\n`);
      file.close();
    }
    expect(readdirSync(folder).sort()).toEqual(['log', 'log.1', 'log.2', 'log.3']);
    const lines = ['log.3', 'log.2', 'log.1', 'log'].map((name) => readFileSync(join(folder, name), 'utf8')).join('');
    const all = Array.from({ length: 30 }, (_, i) => `run ${Math.floor(i / 15)}, line ${String(i % 15).padStart(2)}`);
    expect(lines.trimEnd().split('\n')).toEqual(all.slice(-lines.trimEnd().split('\n').length));
    expect(lines.length).toBeGreaterThan(300);
  });

  test('counts the lines that a full disk takes', () => {
    const file = new RotatingFile('/dev/full', 1e9, 1, (lines, cause) => `${lines} lost: ${cause.message}\n`);
    onTestFinished(() => file.close());
    for (let i = 0; i < 3; i++) expect(() => file.write('line\n')).not.toThrow();
  });
});

test('what is written to a file that is closed goes nowhere: its descriptor may be another file’s by then', () => {
  const folder = temporaryFolder();
  const file = new RotatingFile(join(folder, 'log'), 1e9, 1, () => '');
  file.write('before\n');
  file.close();
  const other = openSync(join(folder, 'other'), 'w');
  onTestFinished(() => closeSync(other));
  file.write('after\n');
  file.close();
  expect([readFileSync(join(folder, 'log'), 'utf8'), readFileSync(join(folder, 'other'), 'utf8')]).toEqual([
    'before\n',
    '',
  ]);
});

describe('the record of crashes', () => {
  const crash = (pid: number) => ({ child: 'inference', pid, cause: 'crashed', tail: ['x'.repeat(10_000)] }) as Crash;

  test('gives the last ones, oldest first, bounded on the disk', () => {
    const folder = temporaryFolder();
    expect(readCrashes(folder, 5)).toEqual([]);
    mkdirSync(join(folder, 'logs'));
    const log = new CrashLog(folder);
    onTestFinished(() => log.close());
    for (let pid = 0; pid < 1000; pid++) log.add(crash(pid));
    expect(readCrashes(folder, 3).map(({ pid }) => pid)).toEqual([997, 998, 999]);
    expect(readCrashes(folder, 1e6).length).toBeLessThan(450);
  });

  test('has the last fifty at hand, newest first, also those of an earlier supervisor', () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'logs'));
    for (let run = 0; run < 2; run++) {
      const log = new CrashLog(folder);
      for (let i = 0; i < 30; i++) log.add(crash(100 * run + i));
      const of = (run: number) => Array.from({ length: 30 }, (_, i) => 100 * run + 29 - i);
      const newest = run === 0 ? of(0) : [...of(1), ...of(0)].slice(0, 50);
      expect(log.newest.map(({ pid }) => pid)).toEqual(newest);
      log.close();
    }
  });

  test('passes over a line that was cut off', () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'logs'));
    const log = new CrashLog(folder);
    onTestFinished(() => log.close());
    log.add(crash(1));
    appendFileSync(join(folder, 'logs/crashes.jsonl'), '{"child": "infer\n');
    log.add(crash(2));
    expect(readCrashes(folder, 10).map(({ pid }) => pid)).toEqual([1, 2]);
  });
});
