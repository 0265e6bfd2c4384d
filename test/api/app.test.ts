/** Every dialect, its headers and its errors, in this process: no socket, no supervisor, no worker. */
import { buildApp } from '@qwen-supervisor/api/app';
import { CodedError, ERRORS, type ErrorCode } from '@qwen-supervisor/protocol/errors';
import { describe, expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';
import { type FakeBackend, fakeBackend } from './fake-backend.js';

const FOX = { prompt: 'a fox on a teal background', seed: 3 };
const USE = { role: 'use', key: 'use-key-0123456789' } as const;
const ADMIN = { role: 'admin', key: 'admin-key-0123456789' } as const;
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

async function serve(options?: Parameters<typeof fakeBackend>[0]) {
  const backend = fakeBackend(options);
  const app = await buildApp(backend);
  onTestFinished(() => app.close());
  const call = (method: 'GET' | 'POST' | 'DELETE' | 'OPTIONS' | 'PATCH', url: string, body?: unknown, headers = {}) =>
    app.inject({ method, url, headers, ...(body === undefined ? {} : { payload: JSON.stringify(body) }) });
  return { app, backend, call };
}

/** The address of a picture in an answer of OpenAI's, up to its id. */
async function urlOfAnswer(options: Parameters<typeof serve>[0], headers: object): Promise<string> {
  const { call, backend } = await serve(options);
  const body = { prompt: 'a fox', response_format: 'url' };
  const answer = call('POST', '/v1/images/generations', body, headers);
  while (backend.jobs.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  const { id } = backend.jobs[0] as { id: string };
  await new Promise((resolve) => setTimeout(resolve, 5));
  backend.end(id, { status: 'done', images: [{ id, url: `/api/v1/images/${id}`, sha256: 'x' }] });
  return (await answer).json().data[0].url.replace(id, '');
}

/** What was put into the queue. */
const ordered = (backend: FakeBackend) =>
  backend.jobs.map(({ prompt, width, height, seed }) => [prompt, width, height, seed]);

describe('a prompt becomes a job, whatever the dialect', () => {
  test('native: 202 with the job', async () => {
    const { call, backend } = await serve();
    const { statusCode, json } = await call('POST', '/api/v1/jobs', FOX);
    expect(statusCode).toBe(202);
    expect(json()).toMatchObject({ ...FOX, status: 'queued', source: 'api' });
    expect(ordered(backend)).toEqual([[FOX.prompt, 128, 128, 3]]);
  });

  test('classic: behind others the answer is its place', async () => {
    const { call, backend } = await serve();
    await call('POST', '/api/v1/jobs', FOX);
    const { json } = await call('POST', '/generate/text-to-image', { ...FOX, width: 120, height: 130 });
    expect(json()).toMatchObject({ success: true, message: 'Request queued. Position: 2' });
    expect(ordered(backend)[1]).toEqual([FOX.prompt, 128, 128, 3]);
  });

  test.each([
    ['/v1/images/generations', { ...FOX, size: '64x64' }],
    ['/sdapi/v1/txt2img', { ...FOX, width: 64, height: 64 }],
  ])('%s waits for the picture, and says what became of it', async (url, body) => {
    const { call, backend } = await serve();
    const answer = call('POST', url, body);
    await expect.poll(() => backend.jobs.length).toBe(1);
    expect(ordered(backend)).toEqual([[FOX.prompt, 64, 64, 3]]);
    const error = new CodedError('JOB_POISONED').toObject();
    await expect
      .poll(() => backend.jobs[0] && backend.end(backend.jobs[0].id, { status: 'failed', error }))
      .not.toBe(null);
    expect((await answer).statusCode).toBe(500);
    expect((await answer).body).toContain('JOB_POISONED');
  });
});

describe('an error has the shape that the clients of its address read', () => {
  const refused = (code: ErrorCode) => ({
    submitJobs: () => {
      throw new CodedError(code, undefined, { retryAfterSeconds: 7 });
    },
  });
  test.each([
    ['/api/v1/jobs', { error: { code: 'QUEUE_FULL', hint: ERRORS.QUEUE_FULL.hint } }],
    ['/v1/images/generations', { error: { type: 'server_error', code: 'QUEUE_FULL', param: null } }],
    ['/sdapi/v1/txt2img', { error: 'QUEUE_FULL', detail: ERRORS.QUEUE_FULL.message }],
    ['/generate/text-to-image', { code: 'QUEUE_FULL', detail: ERRORS.QUEUE_FULL.message }],
  ])('%s', async (url, shape) => {
    const { call } = await serve({ answers: refused('QUEUE_FULL') });
    const { statusCode, headers, json } = await call('POST', url, FOX);
    expect([statusCode, headers['retry-after']]).toEqual([429, '7']);
    expect(json()).toMatchObject(shape);
  });

  test.each([
    ['POST', '/api/v1/jobs', '{', 400, 'BODY_INVALID'],
    ['POST', '/api/v1/jobs', '[]', 400, 'BODY_INVALID'],
    ['POST', '/api/v1/jobs', '{"prompt":"a","width":17}', 400, 'REQUEST_INVALID'],
    ['GET', '/api/v1/jobs/job_0', undefined, 404, 'JOB_NOT_FOUND'],
    ['GET', '/api/v1/images/job_0', undefined, 404, 'IMAGE_NOT_FOUND'],
    ['GET', '/nowhere', undefined, 404, 'NOT_FOUND'],
  ] as const)('%s %s with %s is %i %s', async (method, url, payload, status, code) => {
    const { app } = await serve();
    const answer = await app.inject({ method, url, ...(payload === undefined ? {} : { payload }) });
    expect([answer.statusCode, answer.json().error.code]).toEqual([status, code]);
    expect(answer.headers['x-content-type-options']).toBe('nosniff');
  });

  test('a body beyond the limit is refused before it is read', async () => {
    const { app } = await serve();
    const answer = await app.inject({ method: 'POST', url: '/api/v1/jobs', payload: ' '.repeat(5 << 20) });
    expect([answer.statusCode, answer.json().error.code]).toEqual([413, 'BODY_TOO_LARGE']);
  });
});

describe('who may call', () => {
  test.each([
    ['GET', '/api/v1/status', {}, 401, 'KEY_MISSING'],
    ['GET', '/api/v1/status', bearer('no-such-key-012345'), 401, 'KEY_REFUSED'],
    ['POST', '/api/v1/supervisor/restart', bearer(USE.key), 403, 'ADMIN_ONLY'],
  ] as const)('%s %s with %o is %i', async (method, url, headers, status, code) => {
    const { app } = await serve({ keys: [USE, ADMIN] });
    const answer = await app.inject({ method, url, headers, ...(method === 'POST' ? { payload: '{}' } : {}) });
    expect([answer.statusCode, answer.json().error.code]).toEqual([status, code]);
  });

  test('keys open what they are for; health needs none', async () => {
    const { call } = await serve({ keys: [USE, ADMIN] });
    for (const key of [USE.key, ADMIN.key])
      expect((await call('GET', '/api/v1/status', undefined, bearer(key))).statusCode).toBe(200);
    expect((await call('GET', '/healthz')).statusCode).toBe(200);
    const { headers } = await call('POST', '/api/v1/session', { key: USE.key });
    const cookie = String(headers['set-cookie']).split(';')[0];
    expect((await call('GET', '/api/v1/session', undefined, { cookie })).json()).toEqual({
      required: true,
      role: 'use',
    });
  });

  test('a proxy that is believed says how we are called: its https makes the cookie Secure', async () => {
    const signIn = async (trustedProxies: string[], headers = {}) => {
      const { call } = await serve({ keys: [USE], access: { trustedProxies } });
      const answer = await call('POST', '/api/v1/session', { key: USE.key }, headers);
      return String(answer.headers['set-cookie']).endsWith('; Secure');
    };
    const https = { 'x-forwarded-proto': 'https' };
    expect(await signIn(['127.0.0.1'], https)).toBe(true);
    expect(await signIn(['10.0.0.0/8'], https), 'it is no proxy of ours').toBe(false);
    expect(await signIn([], https), 'nobody is believed by default').toBe(false);
    expect(await signIn(['127.0.0.1'])).toBe(false);
  });

  test('the addresses in answers are those by which a client reaches us', async () => {
    const base = (access: object, headers: object) => urlOfAnswer({ access }, headers);
    const forwarded = { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'art.example', 'x-forwarded-for': '1.2.3.4' };
    const trusted = { trustedProxies: ['127.0.0.1'] };
    expect(await base({}, {})).toBe('http://localhost:80/api/v1/images/');
    expect(await base({}, forwarded)).toBe('http://localhost:80/api/v1/images/');
    expect(await base(trusted, forwarded)).toBe('https://art.example/api/v1/images/');
    const inPath = { ...forwarded, 'x-forwarded-prefix': '/qwen/' };
    expect(await base(trusted, inPath)).toBe('https://art.example/qwen/api/v1/images/');
    expect(await base({ pathPrefix: '/q' }, {})).toBe('http://localhost:80/q/api/v1/images/');
    const odd = {
      ...forwarded,
      'x-forwarded-proto': 'javascript',
      'x-forwarded-host': 'a@evil',
      'x-forwarded-prefix': '/a b',
    };
    expect(await base(trusted, odd)).toBe('http://localhost:80/api/v1/images/');
  });

  test('below a prefix everything is where it was, whether the proxy takes it away or not', async () => {
    const { call } = await serve({ access: { pathPrefix: '/qwen' } });
    for (const url of ['/qwen/v1/models', '/v1/models', '/qwen/healthz?x'])
      expect((await call('GET', url)).statusCode, url).toBe(200);
    expect((await call('GET', '/qwenx/v1/models')).statusCode).toBe(404);
    const location = async (url: string) =>
      (await call('GET', url, undefined, { accept: 'text/html' })).headers.location;
    expect([await location('/qwen'), await location('/qwen/docs')]).toEqual(['/qwen/app/', '/qwen/docs/']);
    expect((await call('GET', '/qwen/docs/')).body).toContain('src="./static/');
  });

  test('a session that was signed out of is over, for this process and the next', async () => {
    const dataDir = temporaryFolder();
    const first = await serve({ keys: [USE], dataDir });
    const { headers } = await first.call('POST', '/api/v1/session', { key: USE.key });
    const cookie = String(headers['set-cookie']).split(';')[0];
    const role = async ({ call }: typeof first) =>
      (await call('GET', '/api/v1/session', undefined, { cookie })).json().role;
    expect(await role(first)).toBe('use');
    expect((await first.call('DELETE', '/api/v1/session', undefined, { cookie })).statusCode).toBe(204);
    expect(await role(first)).toBeNull();
    expect(await role(await serve({ keys: [USE], dataDir }))).toBeNull();
  });

  test('a cookie is nothing in the hands of a page of another port', async () => {
    const { call } = await serve({ keys: [ADMIN], answers: { cancelJobs: () => ({ cancelled: 0 }) } });
    const { headers } = await call('POST', '/api/v1/session', { key: ADMIN.key });
    const cookie = String(headers['set-cookie']).split(';')[0];
    const cancel = (more: object) => call('POST', '/api/v1/jobs/cancel', { scope: 'queued' }, { cookie, ...more });
    expect((await cancel({ origin: 'http://localhost:3000' })).statusCode).toBe(401);
    expect((await cancel({ 'sec-fetch-site': 'same-site' })).statusCode).toBe(401);
    expect((await cancel({ origin: 'http://localhost:80' })).statusCode).toBe(200);
  });

  test.each([
    [{ host: 'evil.example' }, 403],
    [{ host: 'localhost', origin: 'https://evil.example' }, 403],
    [{ host: '127.0.0.1:8000' }, 200],
    [{ host: 'localhost', origin: 'http://localhost:5173' }, 200],
  ])('%o is %i', async (headers, status) => {
    const { call } = await serve();
    expect((await call('GET', '/api/v1/status', undefined, headers)).statusCode).toBe(status);
  });
});

test('the classic queue shows those that are next, however many wait', async () => {
  const { call } = await serve();
  for (let seed = 0; seed < 120; seed++) await call('POST', '/api/v1/jobs', { ...FOX, seed });
  const { queue, queue_size } = (await call('GET', '/queue')).json();
  expect(queue_size).toBe(120);
  expect(queue.map((job: { request: { seed: number } }) => job.request.seed)).toEqual([0, 1, 2, 3, 4]);
});

test('a listener of a job hears it as it is, what happens to it, and its end', async () => {
  const { app, backend } = await serve();
  const { id } = (await app.inject({ method: 'POST', url: '/api/v1/jobs', payload: JSON.stringify(FOX) })).json();
  const stream = app.inject({ method: 'GET', url: `/api/v1/jobs/${id}/events` });
  await expect.poll(() => backend.asked.some(({ method }) => method === 'getJob')).toBe(true);
  backend.tell({
    type: 'running',
    jobId: id,
    attempt: 1,
    step: 0,
    startedOverReason: null,
    machine: null,
    device: 'cpu',
    model: 'm',
  });
  backend.end(id, { status: 'cancelled' });
  const events = [...(await stream).body.matchAll(/^event: (.+)$/gm)].map(([, name]) => name);
  expect(events).toEqual(['job', 'running', 'cancelled']);
});

describe('what every client may do', () => {
  test('a slash too many, and a query that nobody knows, do no harm', async () => {
    for (const url of [
      '//sdapi/v1/options',
      '/v1//models',
      '/v1/models/',
      '/v1/models?api-version=1',
      '/api/v1/jobs?t=1',
    ])
      expect((await (await serve()).call('GET', url)).statusCode, url).toBe(200);
  });

  test('every answer has an id, errors a reason that says what is wrong', async () => {
    const { app } = await serve();
    const ok = await app.inject({ url: '/v1/models' });
    expect(ok.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
    const wrong = await app.inject({ method: 'POST', url: '/v1/images/generations', payload: { prompt: 'x', n: 99 } });
    expect([wrong.statusMessage, wrong.headers['x-request-id']]).toEqual([
      expect.stringMatching(/^n: /),
      expect.not.stringMatching(String(ok.headers['x-request-id'])),
    ]);
  });

  test('the headers that guard a browser are on refusals, too', async () => {
    const { app } = await serve();
    const refused = await app.inject({ url: '/v1/models', headers: { origin: 'https://evil.example' } });
    expect([refused.statusCode, refused.headers['x-content-type-options'], refused.headers['x-frame-options']]).toEqual(
      [403, 'nosniff', 'DENY'],
    );
  });

  test('models are listed by the names that clients look for', async () => {
    const { app } = await serve();
    const ids = (await app.inject({ url: '/v1/models' })).json().data.map(({ id }: { id: string }) => id);
    expect(ids).toEqual(['pocket', 'gpt-image-1', 'dall-e-3']);
  });
});

describe('a form', () => {
  const part = (head: string, body: string) => `--x\r\nContent-Disposition: form-data; ${head}\r\n\r\n${body}\r\n`;
  const post = async (...parts: string[]) => {
    const { app } = await serve();
    const headers = { 'content-type': 'multipart/form-data; boundary=x' };
    const answer = await app.inject({
      method: 'POST',
      url: '/v1/images/edits',
      headers,
      payload: `${parts.join('')}--x--\r\n`,
    });
    return [answer.statusCode, answer.json().error.message];
  };
  const prompt = part('name="prompt"', 'a fox');

  test.each([
    ['a file of another name', [prompt, part('name="control_image"; filename="a.png"', 'GIF89a')], /^control_image: /],
    ['a part without a name', [prompt, part('filename="a.png"', 'GIF89a')], /image and mask/],
    [
      'two masks',
      [prompt, part('name="mask"; filename="a"', 'GIF89a'), part('name="mask_image"; filename="b"', 'GIF89a')],
      /^mask: /,
    ],
    ['no picture', [prompt], /^image: /],
    ['an empty picture', [prompt, part('name="image"; filename="a.png"', '')], /empty/],
    ['no form at all', ['--y'], /multipart/],
  ])('with %s is refused for that', async (_what, parts, words) => {
    expect(await post(...parts)).toEqual([400, expect.stringMatching(words)]);
  });
});
