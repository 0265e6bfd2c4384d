/** Who may call, from where, and how much. Each rule has a case here that fails without it. */
import { chmodSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';
import { readEvents } from './event-reader.js';
import { cli, type Product, startProduct, until } from './product.js';

const USE = 'use-key-0123456789abcdef';
const OTHER = 'other-use-key-0123456789';
const ADMIN = 'admin-key-0123456789abcd';
const KEYS = `# who may call\nuse ${USE}\n  use   ${OTHER}  \n\nadmin ${ADMIN}\n`;
const QUICK = { prompt: 'a fox', numInferenceSteps: 1 };

function keysFile(text = KEYS, mode = 0o600): string {
  const file = join(mkdtempSync(join(tmpdir(), 'qwen-supervisor-test-')), 'keys');
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
}

async function started(...args: string[]): Promise<Product> {
  const product = await startProduct(args);
  onTestFinished(() => product.clean());
  return product;
}

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const basic = (key: string) => ({ authorization: `Basic ${Buffer.from(`me:${key}`).toString('base64')}` });

describe('with keys', () => {
  let product: Product;
  beforeAll(async () => {
    product = await startProduct([
      '--keys-file',
      keysFile(),
      '--requests-per-minute',
      '300',
      '--allow-origins',
      'https://a.example',
      '--allow-hosts',
      'gpu.lan',
    ]);
  });
  afterAll(() => product.clean());

  const NEEDS_KEY = [
    '/api/v1/jobs',
    '/api/v1/status',
    '/api/v1/snapshot',
    '/api/v1/events',
    '/api/v1/images',
    '/v1/models',
    '/sdapi/v1/options',
    '/sdapi/v1/progress',
    '/status',
    '/queue',
    '/images/x.png',
    '/metrics',
  ];

  test.each(NEEDS_KEY)('%s is closed without one and with a wrong one, and says how to send it', async (path) => {
    const none = await product.fetch(path);
    expect([none.status, none.headers.get('www-authenticate')]).toEqual([401, expect.stringMatching(/^Bearer /)]);
    expect((await product.fetch(path, { headers: bearer('wrong-key-0123456789abc') })).status).toBe(401);
  });

  test.each(['/healthz', '/readyz', '/', '/docs/', '/openapi.json'])('%s is open: it tells nothing', async (path) => {
    const response = await product.fetch(path, { redirect: 'manual' });
    expect(response.status).not.toBe(401);
    expect(await response.text()).not.toContain(product.dataDir);
  });

  test.each([
    ['Bearer', bearer(USE)],
    ['Bearer, the second key', bearer(OTHER)],
    ['Basic, as A1111 clients send it', basic(USE)],
    ['an admin key', bearer(ADMIN)],
  ])('%s opens them', async (_how, headers) => {
    expect((await product.call('/v1/models', undefined, headers)).status).toBe(200);
    expect((await product.call('/api/v1/jobs', QUICK, headers)).status).toBe(202);
  });

  test('only an admin key restarts a process', async () => {
    const restart = (key: string) => product.call('/api/v1/supervisor/restart', { child: 'inference' }, bearer(key));
    expect((await restart(USE)).json).toMatchObject({ error: { code: 'ADMIN_ONLY' } });
    const pid = async () => {
      const { json } = await product.call('/api/v1/status', undefined, bearer(USE));
      return (json as { children: { pid: number }[] }).children[0]?.pid ?? null;
    };
    const before = await until(pid);
    expect((await restart(ADMIN)).status).toBe(202);
    await until(async () => ((await pid()) !== before ? true : null));
  });

  describe('a page', () => {
    const signIn = (key: string) => product.call('/api/v1/session', { key });
    const cookieOf = (headers: Headers) => headers.get('set-cookie')?.split(';')[0] as string;

    test('signs in with a key, and its pictures and events come by cookie', async () => {
      expect((await product.call('/api/v1/session')).json).toEqual({ required: true, role: null });
      const { status, headers, json } = await signIn(USE);
      expect([status, json]).toEqual([200, { role: 'use' }]);
      expect(headers.get('set-cookie')).toMatch(/; HttpOnly; SameSite=Strict$/);
      expect(headers.get('set-cookie'), 'the key itself is not in it').not.toContain(USE);
      const cookie = { cookie: `theme=dark; ${cookieOf(headers)}` };
      expect((await product.call('/api/v1/session', undefined, cookie)).json).toEqual({ required: true, role: 'use' });
      const reader = await readEvents(`${product.url}/api/v1/events`, cookie);
      expect(reader.status).toBe(200);
      reader.close();
      const admin = await product.call('/api/v1/supervisor/restart', { child: 'api' }, cookie);
      expect(admin.json).toMatchObject({ error: { code: 'ADMIN_ONLY' } });
      const proxied = { ...cookie, ...basic('of-a-proxy-before-us') };
      expect((await product.fetch('/v1/models', { headers: proxied })).status, 'whatever a proxy adds').toBe(200);
    });

    test('is refused with a wrong key, a changed cookie, or one that has run out', async () => {
      expect((await signIn('wrong-key-0123456789abc')).json).toMatchObject({ error: { code: 'KEY_REFUSED' } });
      const cookie = cookieOf((await signIn(ADMIN)).headers);
      const open = async (changed: string) =>
        (await product.fetch('/v1/models', { headers: { cookie: changed } })).status;
      expect(await open(cookie)).toBe(200);
      expect(await open(cookie.replace(/=\d/, '=9'))).toBe(401);
      expect(await open(cookie.replace(/=\d+/, '=1'))).toBe(401);
      expect(await open(cookie.slice(0, -1))).toBe(401);
    });

    test('signs out', async () => {
      const response = await product.fetch('/api/v1/session', { method: 'DELETE' });
      expect([response.status, response.headers.get('set-cookie')]).toEqual([
        204,
        expect.stringContaining('Max-Age=0'),
      ]);
    });
  });

  test('an address in an answer opens its picture without a key, and nothing else', async () => {
    const body = { prompt: 'a fox', num_inference_steps: 1, response_format: 'url', output_format: 'webp' };
    const { json } = await product.call('/v1/images/generations', body, bearer(USE));
    const { url } = (json as { data: [{ url: string }] }).data[0];
    const picture = await fetch(url);
    expect([picture.status, picture.headers.get('content-type')]).toEqual([200, 'image/webp']);
    const ofAnother = url.replace(/job_(\w)/, (_, digit) => `job_${digit === '0' ? '1' : '0'}`);
    expect((await fetch(ofAnother)).status).toBe(401);
    expect((await fetch(url.replace(/images\/\w+/, 'jobs'))).status).toBe(401);
    expect((await fetch(url.split('?')[0] as string)).status).toBe(401);
  });

  test('two keys may use the same Idempotency-Key: neither gets the jobs of the other', async () => {
    const id = async (key: string) => {
      const headers = { ...bearer(key), 'idempotency-key': 'mine' };
      return ((await product.call('/api/v1/jobs', QUICK, headers)).json as { id: string }).id;
    };
    expect(await id(USE)).toBe(await id(USE));
    expect(await id(OTHER)).not.toBe(await id(USE));
  });

  test('pages of an origin that is allowed may call and read; a preflight needs no key; others are refused', async () => {
    const origin = 'https://a.example';
    const preflight = await product.fetch('/api/v1/jobs', {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' },
    });
    expect(preflight.status).toBe(204);
    expect(Object.fromEntries(preflight.headers)).toMatchObject({
      'access-control-allow-origin': origin,
      'access-control-allow-methods': expect.stringContaining('PATCH'),
      'access-control-allow-headers': 'authorization',
    });
    const allowed = await product.fetch('/v1/models', { headers: { ...bearer(USE), origin } });
    expect(allowed.headers.get('access-control-allow-origin')).toBe(origin);
    for (const foreign of ['https://b.example', 'https://a.example.b.example', 'null', 'http://a.example']) {
      const refused = await product.fetch('/v1/models', { headers: { ...bearer(USE), origin: foreign } });
      expect([refused.status, refused.headers.get('access-control-allow-origin')], foreign).toEqual([403, null]);
    }
  });

  test('a name of this server that is allowed is answered, a foreign one is not', async () => {
    const asked = (host: string) =>
      rawRequest(product, `GET /healthz HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`);
    expect(await asked('gpu.lan:8000')).toMatch(/^HTTP\/1.1 200/);
    expect(await asked('rebound.example')).toMatch(/^HTTP\/1.1 403/);
    expect(await asked('192.0.2.7:8000'), 'an address cannot be rebound').toMatch(/^HTTP\/1.1 200/);
  });

  test('neither keys nor prompts are in the logs', async () => {
    const secret = 'a prompt that nobody else should read';
    await product.call('/api/v1/jobs', { ...QUICK, prompt: secret }, bearer(USE));
    await product.call('/v1/images/generations', { prompt: secret, size: '1x1' }, bearer(USE));
    await product.call('/api/v1/jobs', `{"prompt": "${secret}`, bearer(USE));
    await product.call('/sdapi/v1/txt2img', { prompt: secret, steps: 1 }, basic(USE));
    const log = () => readFileSync(join(product.dataDir, 'logs', 'supervisor.log'), 'utf8');
    await until(async () => (log().includes('job done') ? true : null));
    for (const hidden of [secret, USE, OTHER, ADMIN, Buffer.from(`me:${USE}`).toString('base64')])
      expect(log()).not.toContain(hidden);
  });

  test('a key that sends too much waits, and no other has to; guessing is counted, too', async () => {
    const many = async (headers: Record<string, string>) => {
      for (let i = 0; i < 400; i++) {
        const response = await product.fetch('/v1/models', { headers });
        await response.arrayBuffer();
        if (response.status === 429) return response.headers.get('retry-after');
      }
      return null;
    };
    expect(Number(await many(bearer(OTHER)))).toBeGreaterThan(0);
    expect((await product.fetch('/v1/models', { headers: bearer(ADMIN) })).status).toBe(200);
    expect(Number(await many(bearer('wrong-key-0123456789abc'))), 'at any address').toBeGreaterThan(0);
    const elsewhere = await product.fetch('/nowhere', { headers: bearer('wrong-key-0123456789abc') });
    expect(elsewhere.status).toBe(429);
  });

  test('keys are read again with the configuration: one that is gone opens nothing any more, nor do its sessions', async () => {
    const file = keysFile();
    const other = await started('--keys-file', file);
    const { headers } = await other.call('/api/v1/session', { key: USE });
    const cookie = headers.get('set-cookie')?.split(';')[0] as string;
    writeFileSync(file, `use ${OTHER}\n`);
    expect(await cli(['reload', '--data-dir', other.dataDir])).toMatchObject({ code: 0 });
    const statusWith = async (sent: Record<string, string>) =>
      (await other.fetch('/v1/models', { headers: sent }).catch(() => null))?.status ?? null;
    await until(async () => ((await statusWith(bearer(USE))) === 401 ? true : null));
    expect(await statusWith({ cookie })).toBe(401);
    expect(await statusWith(bearer(OTHER))).toBe(200);
  });
});

describe('without keys', () => {
  let product: Product;
  beforeAll(async () => {
    product = await startProduct(['--max-connections', '40', '--max-upload-megabytes', '1']);
  });
  afterAll(() => product.clean());

  test('whatever clients send as one by habit is ignored, and there is nothing to sign in to', async () => {
    for (const headers of [bearer('sk-none'), basic('x'), { authorization: 'nonsense' }])
      expect((await product.call('/v1/models', undefined, headers)).status).toBe(200);
    expect((await product.call('/api/v1/session')).json).toEqual({ required: false, role: 'use' });
    const { status, headers } = await product.call('/api/v1/session', { key: 'anything' });
    expect([status, headers.get('set-cookie')]).toEqual([200, null]);
  });

  test('nobody restarts a process over HTTP', async () => {
    const { status, json } = await product.call('/api/v1/supervisor/restart', { child: 'api' });
    expect([status, json]).toMatchObject([403, { error: { code: 'ADMIN_ONLY' } }]);
  });

  test('pages of this machine may call, pages of others may not, by name or by rebinding', async () => {
    const status = async (headers: Record<string, string>) => (await product.fetch('/healthz', { headers })).status;
    expect(await status({ origin: 'http://localhost:3000' })).toBe(200);
    expect(await status({ origin: 'https://evil.example' })).toBe(403);
    expect(await status({ origin: 'null' })).toBe(403);
    expect(
      await rawRequest(product, 'GET /healthz HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n'),
    ).toMatch(/^HTTP\/1.1 403/);
  });

  test('every answer keeps browsers from guessing, framing and telling; pages load nothing from elsewhere', async () => {
    const headers = Object.fromEntries((await product.fetch('/v1/models')).headers);
    expect(headers).toMatchObject({
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
      'referrer-policy': 'no-referrer',
      'cross-origin-resource-policy': 'same-origin',
    });
    const policy = (await product.fetch('/docs/')).headers.get('content-security-policy');
    expect(policy).toContain("default-src 'self'");
    expect(policy).not.toMatch(/https?:\/\/\w|script-src[^;]*unsafe/);
  });

  test('bodies have limits: small ones without a picture, the configured one with; they are not even read', async () => {
    const announced = (path: string, bytes: number, type = 'application/json') =>
      rawRequest(
        product,
        `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: ${type}\r\ncontent-length: ${bytes}\r\n\r\n`,
      );
    for (const [path, bytes, type] of [
      ['/api/v1/jobs', 1.2e6],
      ['/sdapi/v1/img2img', 1.2e6],
      ['/generate/image-to-image', 1.2e6],
      ['/v1/images/edits', 1.2e6, 'multipart/form-data; boundary=x'],
      ['/v1/images/generations', 5e6],
      ['/sdapi/v1/options', 5e6],
    ] as const)
      expect(await announced(path, bytes, type), path).toMatch(/^HTTP\/1.1 413 [\s\S]*BODY_TOO_LARGE/);
    const header = await rawRequest(product, `GET /healthz HTTP/1.1\r\nx-large: ${'x'.repeat(20_000)}\r\n\r\n`);
    expect(header).toMatch(/^HTTP\/1.1 431 [\s\S]*HEADERS_TOO_LARGE/);
  });

  test('a client that never ends the head of its request is cut off', async () => {
    const started = Date.now();
    const answer = await rawRequest(product, 'GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: ');
    expect(answer).toMatch(/^HTTP\/1.1 408 [\s\S]*REQUEST_TIMEOUT/);
    expect(Date.now() - started).toBeLessThan(30_000);
  });

  test('connections beyond the limit are not taken, and room is given back', async () => {
    const sockets = Array.from({ length: 60 }, () => connect(Number(new URL(product.url).port), '127.0.0.1'));
    let closed = 0;
    for (const socket of sockets) {
      socket.on('error', () => {});
      socket.on('close', () => closed++);
    }
    await until(async () => (closed >= 15 ? true : null));
    for (const socket of sockets) socket.destroy();
    await until(async () => (await product.fetch('/healthz').catch(() => null))?.ok || null);
  });

  test('nothing is answered with a stack or a path of this machine', async () => {
    for (const [path, body] of [
      ['/api/v1/jobs', '{"prompt": '],
      ['/api/v1/jobs', { prompt: 1 }],
      ['/v1/images/edits', 'x'],
      ['/sdapi/v1/png-info', { image: '%%%' }],
      ['/sdapi/v1/img2img', { init_images: ['aGVsbG8='] }],
      ['/api/v1/images/..%2f..%2fetc%2fpasswd', undefined],
    ] as const) {
      const { status, json } = await product.call(path, body);
      expect(status).toBeGreaterThan(399);
      expect(JSON.stringify(json), path).not.toMatch(/\bat \w|node_modules|\.js:\d|\/root|\/home|\/tmp/);
    }
  });
});

describe('an address beyond loopback', () => {
  const start = (...args: string[]) => cli(['start', '--port', '0', '--data-dir', temporaryFolder(), ...args]);

  test.each(['0.0.0.0', '::'])('%s is not served without keys', async (host) => {
    const { code, stderr } = await start('--host', host);
    expect([code, stderr]).toEqual([77, expect.stringContaining('HOST_REFUSED')]);
    expect(stderr).toMatch(/--keys-file.*--keyless/);
  });

  test('is served with keys, or to everybody where the operator says so', async () => {
    const reach = async (product: Product, headers = {}) => {
      const { port } = new URL(product.url);
      return (await fetch(`http://127.0.0.1:${port}/v1/models`, { headers })).status;
    };
    const guarded = await started('--host', '0.0.0.0', '--keys-file', keysFile());
    expect([await reach(guarded), await reach(guarded, bearer(USE))]).toEqual([401, 200]);
    const open = await started('--host', '0.0.0.0', '--keyless', 'anywhere');
    expect(await reach(open)).toBe(200);
  });

  test('stays closed when the keys are taken out of the configuration: that is refused, and nothing has changed', async () => {
    const config = join(temporaryFolder(), 'config.toml');
    writeFileSync(config, `host = "0.0.0.0"\nkeys-file = "${keysFile()}"\n`);
    const product = await started('--config', config);
    writeFileSync(config, 'host = "0.0.0.0"\n');
    const reload = await cli(['reload', '--data-dir', product.dataDir]);
    expect([reload.code, reload.stderr]).toEqual([77, expect.stringContaining('HOST_REFUSED')]);
    const { port } = new URL(product.url);
    expect((await fetch(`http://127.0.0.1:${port}/v1/models`)).status).toBe(401);
  });

  test.each([
    ['can be read by others', keysFile(KEYS, 0o644)],
    ['can be written by others', keysFile(KEYS, 0o622)],
    ['is not there', '/nowhere/keys'],
    ['has no key', keysFile('# none\n')],
    ['has a key that can be guessed', keysFile('use short\n')],
    ['has a role that there is not', keysFile(`root ${USE}\n`)],
  ])('a file of keys that %s is refused at the start, and no key is shown', async (_what, file) => {
    const { code, stderr } = await start('--keys-file', file);
    expect([code, stderr]).toEqual([78, expect.stringContaining('KEYS_FILE_INVALID')]);
    expect(stderr).not.toContain(USE);
  });
});

/** Sends bytes and gives what comes back until the server closes. */
function rawRequest(product: Product, text: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(Number(new URL(product.url).port), '127.0.0.1', () => socket.write(text));
    let answer = '';
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(answer));
  });
}
