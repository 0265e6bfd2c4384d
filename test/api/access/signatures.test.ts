import {
  closeSession,
  keyOfSession,
  keyOfSignedUrl,
  openSession,
  sessionOf,
  signUrl,
} from '@qwen-supervisor/api/access/signatures';
import type { ApiKey } from '@qwen-supervisor/protocol/api-keys';
import { expect, test } from 'vitest';

const KEYS: ApiKey[] = [
  { role: 'use', key: 'use-key-0123456789abcdef' },
  { role: 'admin', key: 'admin-key-0123456789abcd' },
];
const [use, admin] = KEYS as [ApiKey, ApiKey];
const NOW = Date.parse('2026-11-25T00:00:00Z');
const DAY_MS = 86_400_000;

test('a session stands for its key for thirty days, and not a second longer', () => {
  const cookie = openSession(admin, NOW, false).split(';')[0];
  const session = sessionOf(cookie) as string;
  expect(keyOfSession(session, KEYS, NOW)).toEqual(admin);
  expect(keyOfSession(session, KEYS, NOW + 30 * DAY_MS - 1000)).toEqual(admin);
  expect(keyOfSession(session, KEYS, NOW + 30 * DAY_MS + 1000)).toBeNull();
});

test('it ends with its key, and with the sign-out', () => {
  const cookie = openSession(admin, NOW, false).split(';')[0];
  const session = sessionOf(cookie) as string;
  expect(keyOfSession(session, [use], NOW)).toBeNull();
  for (const none of [undefined, '', 'other=1', 'qwen_supervisor_session=', closeSession(false).split(';')[0]])
    expect(sessionOf(none)).toBeNull();
  expect(keyOfSession(sessionOf('a=b; qwen_supervisor_session=9.x; c=d') as string, KEYS, NOW)).toBeNull();
});

test('a session is written in one way alone: another spelling of its end would be another session', () => {
  const session = sessionOf(openSession(admin, NOW, false)) as string;
  expect(session).toMatch(/^[1-9]/);
  for (const spelled of [`0${session}`, `+${session}`, ` ${session}`, session.replace('.', '.0.')])
    expect(keyOfSession(sessionOf(`qwen_supervisor_session=${spelled}`) ?? '', KEYS, NOW), spelled).toBeNull();
});

test('a signed address opens one picture for an hour, and nothing that needs an admin', () => {
  const url = signUrl('/api/v1/images/job_1', admin, NOW);
  expect(keyOfSignedUrl(url, KEYS, NOW)).toEqual({ ...admin, role: 'use' });
  expect(keyOfSignedUrl(`${url}&format=webp&quality=80`, KEYS, NOW)).not.toBeNull();
  expect(keyOfSignedUrl(url, KEYS, NOW + 3601_000)).toBeNull();
  expect(keyOfSignedUrl(url.replace('job_1', 'job_2'), KEYS, NOW)).toBeNull();
  expect(keyOfSignedUrl(url.replace('/images/job_1', '/jobs'), KEYS, NOW)).toBeNull();
  expect(keyOfSignedUrl(url, [use], NOW)).toBeNull();
});

test('behind https the cookie never goes over http', () => {
  expect(openSession(admin, NOW, true)).toMatch(/; HttpOnly; SameSite=Strict; Secure$/);
  expect(openSession(admin, NOW, false)).not.toContain('Secure');
});
