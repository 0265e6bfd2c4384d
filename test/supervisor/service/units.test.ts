import { serviceUnit, socketUnit } from '@qwen-supervisor/supervisor/service/units';
import { expect, test } from 'vitest';

const service = {
  scope: 'user' as const,
  user: null,
  groups: [],
  program: ['/usr/bin/node', '/opt/qwen supervisor/bin.js'] as [string, string],
  flags: ['--data-dir', '/d', '--path-prefix', ''],
  dataDir: '/d',
  listen: null,
};

test('what systemd would expand or split reaches the program as it was given', () => {
  const unit = serviceUnit({ ...service, flags: ['--model', '/models/50% "off" $HOME\\x\n'] });
  expect(unit).toContain(
    String.raw`ExecStart=/usr/bin/node "/opt/qwen supervisor/bin.js" start --model "/models/50%% \"off\" $$HOME\\x\n"`,
  );
  expect(serviceUnit(service)).toContain('--path-prefix ""');
});

test('ends that the operator has to mend are not repeated', () => {
  // Usage, checkpoint, another supervisor, rights, settings: see the table of errors.
  expect(serviceUnit(service)).toContain('RestartPreventExitStatus=64 65 75 77 78 79 85 86\n');
});

test('a service of the machine has a user, its own folders, and what only that manager can forbid', () => {
  const unit = serviceUnit({ ...service, scope: 'system', user: 'qwen', groups: ['render'], dataDir: '/srv/q' });
  expect(unit).toMatch(/^User=qwen\nSupplementaryGroups=render\nReadWritePaths=\/srv\/q\n/m);
  const byDefault = serviceUnit({ ...service, scope: 'system', user: 'qwen', dataDir: '/var/lib/qwen-supervisor' });
  expect(byDefault).toMatch(/^User=qwen\nStateDirectory=qwen-supervisor\n/m);
  expect(serviceUnit(service)).not.toContain('ProtectSystem');
});

test('no line is what systemd would take for something else', () => {
  const texts = [serviceUnit({ ...service, scope: 'system', user: 'q' }), socketUnit(['127.0.0.1:8000', '[::1]:8000'])];
  for (const line of texts.join('').split('\n')) expect(line).toMatch(/^$|^#|^\[\w+\]$|^[A-Z]\w+=/);
});
