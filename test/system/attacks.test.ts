/** Clients that mean harm, against the product with its default limits: it serves, and holds no more than it should. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';
import { cli, type Product, startProduct, until } from './product.js';

let product: Product;
beforeAll(async () => {
  product = await startProduct();
  await product.ready();
});
afterAll(() => product.clean());

const megabytes = async () => {
  const status = readFileSync(`/proc/${await product.pidOf('api')}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
};
const open = (): Promise<Socket> => {
  const socket = connect(Number(new URL(product.url).port), '127.0.0.1');
  socket.on('error', () => socket.destroy());
  socket.resume();
  onTestFinished(() => void socket.destroy());
  return new Promise((resolve) => socket.on('connect', () => resolve(socket)));
};
const serves = async () => (await product.fetch('/healthz')).status === 200;
/** A PNG with something behind its header; nobody reads the checksums of what is dropped. */
function pngWith(png: Buffer, type: string, data: Buffer, count: number): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(data.length);
  head.write(type, 4, 'latin1');
  const chunk = Buffer.concat([head, data, Buffer.alloc(4)]);
  return Buffer.concat([png.subarray(0, 33), ...Array.from({ length: count }, () => chunk), png.subarray(33)]);
}
const small = sharp({ create: { width: 16, height: 16, channels: 3, background: 'teal' } })
  .png()
  .toBuffer();

test('a thousand connections that say nothing keep nobody out', async () => {
  await Promise.all(Array.from({ length: 1000 }, open));
  expect(await serves()).toBe(true);
});

test('bodies that are never finished cost what came of them, up to a budget', async () => {
  const before = await megabytes();
  const head = 'POST /v1/images/generations HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000000\r\n\r\n';
  const sockets = await Promise.all(Array.from({ length: 200 }, open));
  for (const socket of sockets) socket.write(head + 'x'.repeat(3_900_000));
  // Those beyond the budget are told so, and let go.
  await until(async () =>
    sockets.filter((socket) => socket.destroyed || socket.readableEnded).length > 100 ? true : null,
  );
  expect(await serves()).toBe(true);
  expect((await megabytes()) - before).toBeLessThan(500);
});

test('pictures with gigabytes of packed text in them cost nothing', async () => {
  const bomb = pngWith(
    await small,
    'zTXt',
    Buffer.concat([Buffer.from('a\0\0'), deflateSync(Buffer.alloc(8 << 20))]),
    300,
  );
  const before = await megabytes();
  for (let i = 0; i < 5; i++) {
    const request = { prompt: 'a fox', numInferenceSteps: 1, initImage: bomb.toString('base64') };
    expect((await product.call('/api/v1/jobs', request)).status).toBe(202);
  }
  expect((await megabytes()) - before).toBeLessThan(300);
});

test('texts of 28 megabytes in a picture, and JSON of ten million brackets, hold nobody up', async () => {
  const pid = await product.pidOf('api');
  const png = pngWith(await small, 'tEXt', Buffer.from(`parameters\0x\nSteps: 1${', a: b'.repeat(3e6)}`), 1);
  const info = await product.call('/sdapi/v1/png-info', { image: png.toString('base64') });
  expect([info.status, (info.json as { info: string }).info]).toEqual([200, '']);
  expect((await product.call('/api/v1/jobs', `{"a": [${'[],'.repeat(8e6)}[]]}`)).status).toBe(413);
  expect(await product.pidOf('api')).toBe(pid);
});

test('prompts as long as they may be, by the hundred, cut nobody off', async () => {
  const pid = await product.pidOf('api');
  const jobs = Array.from({ length: 100 }, () => ({ prompt: '漢'.repeat(20_000), numInferenceSteps: 1000 }));
  const body = JSON.stringify({ jobs });
  for (let i = 0; i < 3; i++) expect((await product.call('/api/v1/groups', body)).status).toBe(202);
  const cancel = () => product.call('/api/v1/jobs/cancel', { scope: 'queued' });
  const together = await Promise.all([
    product.call('/api/v1/groups', body),
    product.call('/api/v1/groups', body),
    cancel(),
  ]);
  expect(together.map(({ status }) => status)).toEqual([202, 202, 200]);
  await cancel();
  await product.call('/api/v1/jobs/cancel', { scope: 'running' });
  expect(await product.pidOf('api')).toBe(pid);
  expect((await cli(['crashes', '--data-dir', product.dataDir])).stdout).toBe('no crashes\n');
});

test('an API that has grown beyond its limit is ended, and another one serves', { timeout: 120_000 }, async () => {
  const strict = await startProduct(['--api-memory-gigabytes', '0.01']);
  onTestFinished(() => strict.clean());
  await until(async () => {
    const { stdout } = await cli(['crashes', '--data-dir', strict.dataDir]);
    return /api .*memory-limit/.test(stdout) ? true : null;
  });
});

test('nobody is told anything: no connection leads elsewhere, no file is left for one that would', async () => {
  const home = temporaryFolder();
  const quiet = await startProduct([], undefined, { HOME: home });
  onTestFinished(() => quiet.clean());
  await quiet.ready();
  await quiet.ended((await quiet.submit({ prompt: 'a fox', numInferenceSteps: 2 })).id);
  const pids = [quiet.process.pid as number, await quiet.pidOf('api'), await quiet.pidOf('inference')];
  for (const pid of pids) expect(remotes(pid).filter((address) => !/^(0|7F|127)/.test(address))).toEqual([]);
  const environment = readFileSync(`/proc/${await quiet.pidOf('inference')}/environ`, 'utf8').split('\0');
  expect(environment).toContain('ORT_DISABLE_TELEMETRY=1');
  expect(environment).toContain(`TMPDIR=${join(quiet.dataDir, 'tmp')}`);
  expect(readdirSync(home)).toEqual([]);
  expect(existsSync(`/tmp/mat-debug-${await quiet.pidOf('inference')}.log`)).toBe(false);
});

/** Where the TCP connections of a process lead, as the kernel writes addresses: hexadecimal, IPv4 turned round. */
function remotes(pid: number): string[] {
  const own = new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      const [, inode] = /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${fd}`)) ?? [];
      return inode === undefined ? [] : [inode];
    }),
  );
  return ['tcp', 'tcp6'].flatMap((table) =>
    readFileSync(`/proc/${pid}/net/${table}`, 'utf8')
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => own.has(String(fields[9])))
      // Of an IPv4 address the first number stands last; loopback of IPv6 is nothing but zeros and a one.
      .map((fields) => (fields[2] as string).split(':')[0] as string)
      .map((hex) => (hex.length === 8 ? hex.slice(6) : hex)),
  );
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    // Closed meanwhile.
    return '';
  }
}
