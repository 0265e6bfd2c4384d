import { installedWith, serviceUnit, socketUnit } from '@qwen-supervisor/supervisor/service/units';
import { expect, test } from 'vitest';

const service = {
  scope: 'user' as const,
  user: null,
  groups: [],
  program: ['/usr/bin/node', '/opt/qwen supervisor/bin.js'] as [string, string],
  flags: ['--data-dir', '/d', '--path-prefix', ''],
  dataDir: '/d',
  listen: null,
  needsNetwork: false,
  nvidiaModprobe: null,
  installed: {
    as: null,
    socket: false,
    config: null,
    settings: { 'path-prefix': 'a\nb' },
    program: ['/n', '/b'] as [string, string],
  },
};

test('what systemd would expand or split reaches the program as it was given', () => {
  const unit = serviceUnit({ ...service, flags: ['--model', '/models/50% "off" $HOME\\x\n'] });
  expect(unit).toContain(
    String.raw`ExecStart=/usr/bin/node "/opt/qwen supervisor/bin.js" start --model "/models/50%% \"off\" $$HOME\\x\n"`,
  );
  expect(serviceUnit(service)).toContain('--path-prefix ""');
});

test('the program itself may lie anywhere: in the first word nothing is looked for but specifiers', () => {
  const unit = serviceUnit({ ...service, program: ['/a%b$c d/node', '/e$f.js'] });
  expect(unit).toContain('ExecStart="/a%%b$c d/node" /e$$f.js start');
});

test('with what it was installed can be read back, whatever is in it', () => {
  expect(installedWith(serviceUnit(service))).toEqual(service.installed);
  expect(installedWith('[Unit]\n')).toBe(null);
});

test('a server for others waits for the network, and a card of NVIDIA has its devices made', () => {
  const unit = serviceUnit({ ...service, scope: 'system', user: 'q', needsNetwork: true, nvidiaModprobe: '/bin/nm' });
  expect(unit).toContain('After=network-online.target');
  expect(unit).toContain('ExecStartPre=+-/bin/nm -u -c=0');
  expect(socketUnit(['[::]:8000'])).not.toContain('BindIPv6Only');
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
