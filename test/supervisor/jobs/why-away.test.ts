/** What a shared database says, and whether it may be otherwise a moment later. */
import { CommitUnknown, whyAway } from '@qwen-supervisor/supervisor/jobs/postgres-database';
import { expect, test } from 'vitest';

const error = (message: string, code?: string) => Object.assign(new Error(message), code === undefined ? {} : { code });

test.each([
  ['it does not listen', error('connect ECONNREFUSED 127.0.0.1:5432', 'ECONNREFUSED'), 'STORE_UNREACHABLE'],
  ['it was shut down', error('terminating connection due to administrator command', '57P01'), 'STORE_UNREACHABLE'],
  ['it is full', error('could not extend file', '53100'), 'STORE_UNREACHABLE'],
  ['it is not there now', error('database "pictures" does not exist', '3D000'), 'STORE_UNREACHABLE'],
  ["its tables are somebody else's", error('permission denied for table jobs', '42501'), 'STORE_UNREACHABLE'],
  ['its certificate is of yesterday', error('certificate has expired', 'CERT_HAS_EXPIRED'), 'STORE_UNREACHABLE'],
  ['a commit was not answered', new CommitUnknown('the commit was not answered'), 'STORE_UNREACHABLE'],
  ['it has no tables', error('relation "qwen_supervisor.jobs" does not exist', '42P01'), 'STORE_SCHEMA_OLD'],
  ['it has older tables', error('column "bytes" does not exist', '42703'), 'STORE_SCHEMA_OLD'],
  ['it has no queue', error('Queue pictures does not exist', 'PGBOSS_QUEUE_NOT_FOUND'), 'STORE_SCHEMA_OLD'],
  ['it has no queue, within a transaction', error('Queue pictures does not exist'), 'STORE_SCHEMA_OLD'],
  ['what we send is no SQL', error('syntax error at or near "FORM"', '42601'), null],
  ['what we send breaks a rule of the table', error('violates check constraint', '23514'), null],
  ['a page of it is damaged', error('invalid page in block 3', 'XX001'), null],
  ['a value is of the wrong type', error('The "path" argument must be of type string', 'ERR_INVALID_ARG_TYPE'), null],
  ['a file of ours is not there', Object.assign(error('no such file', 'ENOENT'), { path: '/x' }), null],
])('%s', (_, said, code) => {
  expect(whyAway(said)).toBe(code);
});
