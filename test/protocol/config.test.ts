import { parseConfig } from '@qwen-supervisor/protocol/config';
import { expect, test } from 'vitest';

const BASE = { name: 'the defaults', values: { 'data-dir': '/d', model: '/m' } };

test('later sources win, and text becomes a number where the key is one', () => {
  const config = parseConfig([
    BASE,
    { name: 'file', values: { port: 1000, 'max-steps': 10 } },
    { name: 'the environment', values: { 'max-steps': '20' } },
    { name: 'the command line', values: { port: '3000' } },
  ]);
  expect(config).toMatchObject({ port: 3000, 'max-steps': 20, host: 'localhost' });
});

test.each(['', '/mnt/nas/qwen', 'https://host.lan/bucket', 'http://10.0.0.1:9000/bucket/house/one'])(
  "a shared folder may be '%s'",
  (where) => {
    expect(parseConfig([BASE, { name: 'file', values: { 'shared-folder': where } }])['shared-folder']).toBe(where);
  },
);

test.each(['max-steps', 'max_steps', 'maxSteps'])('%s is the same key', (key) => {
  expect(parseConfig([BASE, { name: 'file', values: { [key]: 7 } }])['max-steps']).toBe(7);
});

test.each([
  [{ prot: 1 }, /unknown key 'prot' in file/],
  [{ port: 70_000 }, /port \(from file\)/],
  [{ port: '8000x' }, /port \(from file\)/],
  [{ 'log-level': 'loud' }, /log-level \(from file\)/],
  [{ constructor: 1 }, /unknown key 'constructor'/],
  [{ 'shared-folder': 's3://bucket' }, /begin with https:/],
  [{ 'shared-folder': 'https://host.lan/' }, /has no bucket/],
  [{ 'shared-folder': 'https://key:secret@host.lan/bucket' }, /must not have a key in it/],
  [{ 'shared-folder': 'https://host.lan/bucket?versionId=1' }, /ends with its bucket/],
])('%o is refused, naming key and source', (values, message) => {
  expect(() => parseConfig([BASE, { name: 'file', values }])).toThrow(message);
});
