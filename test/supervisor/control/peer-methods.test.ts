/** What a peer may call, and what becomes of one that is sick. */
import { VERSION } from '@qwen-supervisor/ipc/version';
import { MESSAGES } from '@qwen-supervisor/protocol/message-schemas';
import { answer, type PeerLink, type Supervised } from '@qwen-supervisor/supervisor/control/peer-methods';
import type { Event } from '@qwen-supervisor/supervisor/core/events';
import { initialState } from '@qwen-supervisor/supervisor/core/state';
import fc from 'fast-check';
import { expect, test } from 'vitest';

const TOKENS = { w: { name: 'inference', number: 3 }, a: { name: 'api', number: 4 } } as const;

/** A connection of this role that has said hello; `sent` are the events that reach the core. */
function connect(role: 'inference' | 'api' | 'cli' | null, version = VERSION) {
  const sent: Event[] = [];
  const nothing = async () => ({});
  const gallery = new Proxy({}, { get: () => nothing });
  const jobs = new Proxy({}, { get: (_, name) => (name === 'gallery' ? gallery : nothing) }) as Supervised['jobs'];
  const supervised = {
    jobs,
    events: { subscribe() {}, unsubscribe() {} },
    state: () => initialState(['inference']),
    send: (event: Event) => sent.push(event),
    nowMs: () => 1,
    children: { withToken: (token: keyof typeof TOKENS) => TOKENS[token] ?? null, attach() {}, detach() {} },
    ask: new Proxy({}, { get: () => () => ({}) }),
    onFault() {},
  } as unknown as Supervised;
  const methods = answer({} as PeerLink, supervised) as Record<string, (params: unknown) => unknown>;
  const call = async (method: string, params: unknown) => methods[method]?.(params);
  const token = role === 'inference' ? 'w' : role === 'api' ? 'a' : null;
  const hello = role === null ? null : call('hello', { role, pid: 1, token, version });
  return { call, sent, hello };
}

const refused = { code: 'MESSAGE_INVALID' };

test('a stranger may say hello and nothing else; a token opens its own role alone', async () => {
  const { call } = connect(null);
  for (const method of Object.keys(MESSAGES).filter((name) => name !== 'hello'))
    await expect(call(method, {}), method).rejects.toMatchObject(refused);
  await expect(call('hello', { role: 'api', pid: 1, token: 'w', version: VERSION })).rejects.toMatchObject(refused);
  await expect(call('hello', { role: 'inference', pid: 1, token: null, version: VERSION })).rejects.toMatchObject(
    refused,
  );
});

test('the worker may not ask for keys, the API may not stop the supervisor, a client may not speak for a child', async () => {
  await expect(connect('inference').call('apiKeys', {})).rejects.toMatchObject(refused);
  await expect(connect('api').call('stop', {})).rejects.toMatchObject(refused);
  await expect(connect('cli').call('beat', {})).rejects.toMatchObject(refused);
  await expect(
    connect('cli').call('hello', { role: 'cli', pid: 1, token: null, version: VERSION }),
  ).rejects.toMatchObject(refused);
});

test('a child of another version is a permanent fault; a command of another version may ask', async () => {
  const { hello, sent } = connect('inference', '9.9.9');
  await expect(hello).rejects.toMatchObject({ code: 'VERSION_MISMATCH' });
  expect(sent.at(-1)).toMatchObject({ event: { type: 'fatal', permanent: true, error: { code: 'VERSION_MISMATCH' } } });
  await expect(connect('cli', '9.9.9').hello).resolves.toBeDefined();
});

test.each([
  ['beat', { rssBytes: Number.NaN, readBytes: 0, cpuSeconds: 0, step: 0, stepShare: 0, work: 0 }],
  ['beat', { rssBytes: 1, readBytes: 0, cpuSeconds: 0, step: -1, stepShare: 0, work: 0 }],
  ['step', { jobId: 'a', attempt: 1, step: 1, preview: 'no bytes' }],
  ['loading', { component: 'no such', bytesDone: 1, bytesTotal: 1 }],
  ['loaded', { seconds: '1', msPerToken: 1 }],
  [
    'finished',
    { jobId: 'a', attempt: 1, outcome: { status: 'done', step: 1, imageId: 'a', file: '../x', sha256: '', bytes: 1 } },
  ],
  ['finished', { jobId: 'a', attempt: 1, outcome: null }],
])('%s with %o of a sick worker never reaches the core', async (method, params) => {
  const { call, sent, hello } = connect('inference');
  await hello;
  sent.length = 0;
  await expect(call(method, params)).rejects.toMatchObject(refused);
  expect(sent).toEqual([]);
});

test('whatever a peer sends is answered or refused, with nothing but a coded error', async () => {
  const anything = fc.oneof(
    fc.anything(),
    fc.dictionary(fc.constantFrom('id', 'orders', 'scope', 'step', 'error'), fc.anything()),
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...Object.keys(MESSAGES)), anything, async (method, params) => {
      for (const role of ['inference', 'api', 'cli'] as const) {
        const { call } = connect(role);
        await call(method, params).catch((error) => expect(error).toHaveProperty('code'));
      }
    }),
    { numRuns: 300 },
  );
});
