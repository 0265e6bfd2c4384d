import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { VERSION } from '@qwen-supervisor/ipc/version';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { MachineStatus } from '@qwen-supervisor/protocol/status';
import { diskFinding } from '@qwen-supervisor/supervisor/doctor/data';
import { findingLine, warn } from '@qwen-supervisor/supervisor/doctor/finding';
import {
  clockFinding,
  limitsFinding,
  memoryFinding,
  processorsFinding,
  tasksFinding,
  tasksRoom,
} from '@qwen-supervisor/supervisor/doctor/machine';
import { deviceFinding } from '@qwen-supervisor/supervisor/doctor/model';
import { nodeFinding, packagesFinding, toolsFinding } from '@qwen-supervisor/supervisor/doctor/program';
import {
  databaseServerFindings,
  machinesFinding,
  sharedFolderFinding,
} from '@qwen-supervisor/supervisor/doctor/shared';
import { serviceFinding, supervisorFinding } from '@qwen-supervisor/supervisor/doctor/supervisor';
import type { ServerFacts } from '@qwen-supervisor/supervisor/jobs/postgres-facts';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../../fixture-files.js';
import { sampleStatus } from '../../sample-status.js';

test.each([
  ['18.20.0', 'fail'],
  ['20.18.3', 'fail'],
  ['20.19.0', 'warn'],
  ['21.0.0', 'warn'],
  ['22.12.0', 'pass'],
  ['24.1.0', 'pass'],
  ['25.0.0', 'warn'],
  ['26.0.0', 'pass'],
])('Node %s: %s, while some of them are mended and others are not', (version, result) => {
  expect(nodeFinding(version, '2026-11-27').result).toBe(result);
});

test('what is missing is named, with what is lost without it', () => {
  expect(packagesFinding((name) => name !== 'sharp')).toMatchObject({ result: 'fail', says: 'missing: sharp' });
  expect(toolsFinding('/nowhere', false)).toMatchObject({ result: 'warn', step: 'install setpriv' });
  expect(toolsFinding('/nowhere', true).step).toBe('install setpriv and systemd-notify');
});

test('a disk without room is a failure, one that is nearly full or locks badly a warning', () => {
  expect(diskFinding({ freeBytes: 50e6, fileSystem: null })).toMatchObject({ result: 'fail', says: '50 MB free' });
  expect(diskFinding({ freeBytes: 2e9, fileSystem: null }).result).toBe('warn');
  expect(diskFinding({ freeBytes: 2e11, fileSystem: 'NFS' })).toMatchObject({ result: 'warn', step: /local disk/ });
  expect(diskFinding({ freeBytes: 2e11, fileSystem: null }).result).toBe('pass');
});

test('a card whose memory is held by another is told with who holds it', () => {
  const card = {
    device: 'cuda:0',
    name: 'NVIDIA L4',
    driver: 'nvidia 580.1',
    nvidia: 0,
    works: true,
    taken: null,
    missing: null,
    step: null,
  };
  const holder = 'process 77 (python3, 20.0 GB)';
  expect(deviceFinding({ ...card, memoryBytes: 24e9, freeBytes: 3e9 }, holder)).toMatchObject({
    result: 'warn',
    says: 'NVIDIA L4, 24.0 GB, 3.0 GB free, nvidia 580.1; of others process 77 (python3, 20.0 GB) has the most',
  });
  expect(deviceFinding({ ...card, memoryBytes: 24e9, freeBytes: 23e9 }, holder).result).toBe('pass');
  // The worker that runs here is nobody else.
  expect(deviceFinding({ ...card, memoryBytes: 24e9, freeBytes: 3e9 }, null).result).toBe('pass');
  expect(deviceFinding({ ...card, memoryBytes: null, freeBytes: null }, holder).result).toBe('pass');
});

test('the room for threads is the least of the control groups around, of either version', () => {
  const root = temporaryFolder();
  const write = (file: string, text: string) => {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), text);
  };
  expect(tasksRoom(root)).toBeNull();
  write('proc/self/cgroup', '0::/user/app\n');
  write('sys/fs/cgroup/user/app/pids.max', 'max\n');
  expect(tasksRoom(root)).toBeNull();
  write('sys/fs/cgroup/user/pids.max', '100\n');
  write('sys/fs/cgroup/user/pids.current', '60\n');
  expect(tasksRoom(root)).toBe(40);
  expect(tasksFinding(40)).toMatchObject({ result: 'warn', says: expect.stringContaining('room for 40 threads') });
  write('proc/self/cgroup', '4:pids:/box\n');
  write('sys/fs/cgroup/pids/box/pids.max', '9000\n');
  write('sys/fs/cgroup/pids/box/pids.current', '10\n');
  expect(tasksFinding(tasksRoom(root))).toMatchObject({ result: 'pass', says: '8990 more threads and processes' });
});

test('of processors that a control group lets be used too little is told', () => {
  expect(processorsFinding(16, null)).toMatchObject({ result: 'pass', says: '16' });
  expect(processorsFinding(2, 4)).toMatchObject({ result: 'pass', says: '2' });
  expect(processorsFinding(16, 4)).toMatchObject({ result: 'pass', says: expect.stringContaining('4.0 of 16') });
  expect(processorsFinding(16, 0.5)).toMatchObject({ result: 'warn', step: expect.stringContaining('CPUQuota') });
});

test('where memory is short its holders are named', () => {
  const holders = () => [{ pid: 12, name: 'python3', bytes: 21e9 }];
  expect(memoryFinding(32e9, 1e9, holders).says).toBe(
    '1.0 GB of 32.0 GB can be had; most is held by python3 (process 12) 21.0 GB',
  );
  expect(memoryFinding(32e9, 20e9, () => expect.unreachable()).result).toBe('pass');
});

test('limits that keep a model out are found in what the kernel says', () => {
  const limits = (space: string, files: string, size = 'unlimited') =>
    `Limit  Soft Limit  Hard Limit  Units\nMax file size  ${size}  unlimited  bytes\n` +
    `Max open files            1024                 ${files}               files\n` +
    `Max address space         ${space}            ${space}            bytes\n`;
  expect(limitsFinding(limits('unlimited', '524288')).result).toBe('pass');
  expect(limitsFinding(limits('8000000000', '524288'))).toMatchObject({
    result: 'fail',
    says: /address space .* 8\.0 GB/,
  });
  expect(limitsFinding(limits('unlimited', '1024')).result).toBe('warn');
  expect(limitsFinding(limits('unlimited', '524288', '1000000')).result).toBe('fail');
  expect(limitsFinding('').result).toBe('pass');
});

test('a clock of before the program was made is wrong; one that nothing keeps may become so', () => {
  const built = Date.parse('2026-11-01');
  expect(clockFinding(Date.parse('2020-01-01'), built, null).result).toBe('fail');
  expect(clockFinding(Date.parse('2026-11-20'), built, false).result).toBe('warn');
  expect(clockFinding(Date.parse('2026-11-20'), built, null).result).toBe('pass');
});

test('a supervisor of another version, with a child that was given up, or whose queue stands still is told', () => {
  const of = (change: object) => supervisorFinding({ ...sampleStatus(VERSION), ...change });
  expect(of({}).result).toBe('pass');
  expect(supervisorFinding(sampleStatus('0.0.1'))).toMatchObject({ result: 'fail', step: /start it anew/ });
  const [inference, api] = sampleStatus(VERSION).children;
  expect(of({ children: [{ ...inference, state: 'failed', reason: 'no model' }, api] }).says).toContain('no model');
  expect(of({ children: [{ ...inference, restarts: 3 }, api] })).toMatchObject({ result: 'warn', says: /3 times/ });
  expect(of({ queue: { queued: 1, running: 0, current: null, problem: 'the disk is full' } }).result).toBe('fail');
});

const SERVER: ServerFacts = {
  version: 150_004,
  isStandby: false,
  risky: [],
  isSuperuser: false,
  isEncrypted: null,
  connections: 20,
  connectionsMax: 100,
  oldestTransactionSeconds: 2,
  keepsSettings: true,
  roundTripMs: 0.4,
};

test('a database server that keeps what is accepted is fine, and says how far away it is', () => {
  expect(databaseServerFindings(SERVER, null)).toEqual([
    { about: 'shared database', result: 'pass', says: 'PostgreSQL 15, 0.4 ms away', step: null },
  ]);
});

test.each<[Partial<ServerFacts>, 'fail' | 'warn', RegExp]>([
  [{ version: 120_017 }, 'fail', /13 or newer/],
  [{ isStandby: true }, 'fail', /primary/],
  [{ keepsSettings: false }, 'fail', /pooler of sessions/],
  [{ risky: ['fsync'] }, 'warn', /switch them on/],
  [{ isEncrypted: false }, 'warn', /sslmode=verify-full/],
  [{ isSuperuser: true }, 'warn', /a user of its own/],
  [{ connections: 97 }, 'warn', /max_connections/],
  [{ oldestTransactionSeconds: 3600 }, 'warn', /pg_stat_activity/],
  [{ roundTripMs: 120 }, 'warn', /nearer/],
])('a database server with %o: %s', (facts, result, step) => {
  expect(databaseServerFindings({ ...SERVER, ...facts }, null)).toMatchObject([
    { result, step: expect.stringMatching(step) },
  ]);
});

test('what is wrong with the tables there is said in the words of its error', () => {
  expect(databaseServerFindings(SERVER, new CodedError('STORE_SCHEMA_OLD'))).toMatchObject([
    { result: 'fail', says: expect.stringContaining('STORE_SCHEMA_OLD'), step: expect.stringContaining('migrate') },
  ]);
});

test('a shared folder that only this machine can have is a warning, and one that is away a failure', () => {
  expect(sharedFolderFinding('', null, null).result).toBe('warn');
  expect(sharedFolderFinding('/mnt/nas', null, { name: 'type 0xef53', locksBadly: false }).step).toMatch(/mount it/);
  expect(sharedFolderFinding('/mnt/nas', null, { name: 'NFS', locksBadly: true }).result).toBe('pass');
  expect(sharedFolderFinding('/mnt/nas', new CodedError('SHARED_FOLDER_UNREACHABLE'), null).result).toBe('fail');
});

test('machines that are silent, of another version or with another model are named', () => {
  const of = (name: string, changes: Partial<MachineStatus> = {}): MachineStatus => ({
    name,
    state: 'up',
    isDrained: false,
    isHere: name === 'here',
    seenAt: '2026-11-26T00:00:00Z',
    version: VERSION,
    url: 'http://127.0.0.1:8000',
    model: 'pocket',
    workers: [],
    ...changes,
  });
  expect(machinesFinding([of('here'), of('den')])).toMatchObject({ result: 'pass', says: '2 of 2 are up' });
  expect(machinesFinding([of('here'), of('den', { state: 'stopped', model: 'other' })]).result).toBe('pass');
  expect(machinesFinding([of('here'), of('den', { state: 'silent' })]).says).toMatch(/nothing is heard of den/);
  expect(machinesFinding([of('here'), of('den', { version: '9.9.9' })]).says).toMatch(/den run another version/);
  expect(machinesFinding([of('here'), of('den', { model: 'other' })]).says).toMatch(/den draw with another model/);
});

test('a service that ends with the session of its user is a warning, and says how it stays', () => {
  const unit = { path: join(temporaryFolder(), 'qwen-supervisor.service'), scope: 'user' as const };
  writeFileSync(unit.path, '');
  const state = { active: 'active', sub: 'running', text: '', pid: 7, restarts: 0, result: 'success' };
  expect(serviceFinding(unit, state, null).result).toBe('pass');
  expect(serviceFinding(unit, state, 'kim')).toMatchObject({ result: 'warn', step: 'loginctl enable-linger kim' });
});

test('what a finding says cannot move the cursor, in colours neither', () => {
  const line = findingLine(warn('port', 'held by \x1b[2Jx', 'end \x1b]0;x\x07'), true);
  expect(line).toContain('\x1b[33mwarn\x1b[39m  port');
  expect(line).toContain('held by \\u001b[2Jx');
  expect(line).toContain('end \\u001b]0;x\\u0007');
});
