/** Clients that are silent, slow or greedy, against real sockets. */
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { answerBrokenRequest, watchConnections } from '@qwen-supervisor/api/access/connections';
import { afterEach, expect, test } from 'vitest';

const open: (() => void)[] = [];
afterEach(() => {
  for (const close of open.splice(0)) close();
});

/** Answers /hold never, everything else at once. */
async function serve(max: number): Promise<{ server: Server; port: number }> {
  const server = createServer({ headersTimeout: 300, connectionsCheckingInterval: 100 }, (request, response) => {
    request.resume();
    if (request.url !== '/hold') request.on('end', () => response.end('yes'));
  });
  server.on('clientError', answerBrokenRequest);
  watchConnections(server, max);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  open.push(() => server.close());
  return { server, port: (server.address() as AddressInfo).port };
}

interface Client {
  socket: Socket;
  /** All that was answered, when the server has closed. */
  closed: Promise<string>;
}

function client(port: number, text = '', from = '127.0.0.1'): Promise<Client> {
  const socket = connect({ port, host: '127.0.0.1', localAddress: from, allowHalfOpen: true });
  open.push(() => socket.destroy());
  let heard = '';
  socket.on('data', (chunk) => {
    heard += chunk;
  });
  const closed = new Promise<string>((resolve) => {
    for (const event of ['end', 'close', 'error']) socket.on(event, () => resolve(heard));
  });
  return new Promise((resolve, reject) => {
    socket.on('connect', () => {
      socket.write(text);
      resolve({ socket, closed });
    });
    socket.on('error', reject);
  });
}

const GET = (path: string) => `GET ${path} HTTP/1.1\r\nhost: a\r\n\r\n`;
const holders = (server: Server) =>
  new Promise<number>((resolve) => server.getConnections((_error, count) => resolve(count)));
const until = async (is: () => Promise<boolean>) => {
  while (!(await is())) await new Promise((resolve) => setTimeout(resolve, 50));
};

test('a connection on which nothing is said is given back, although its client never closes it', async () => {
  const { server, port } = await serve(10);
  const silent = await client(port);
  expect(await silent.closed).toMatch(/^HTTP\/1.1 408 .*REQUEST_TIMEOUT/s);
  await until(async () => (await holders(server)) === 0);
});

test('so is one that speaks no HTTP, with the headers that every answer has', async () => {
  const { server, port } = await serve(10);
  const { closed } = await client(port, 'quit\r\n\r\n');
  expect(await closed).toMatch(/^HTTP\/1.1 400 .*x-content-type-options: nosniff.*REQUEST_INVALID/s);
  await until(async () => (await holders(server)) === 0);
});

test('where all places are taken by idle connections, a newcomer takes that of the longest idle one', async () => {
  const { port } = await serve(4);
  const idle = [await client(port), await client(port)];
  const newcomer = await client(port, GET('/'));
  await idle[0]?.closed;
  expect(idle[0]?.socket.destroyed || idle[0]?.socket.readableEnded).toBe(true);
  await new Promise((resolve) => newcomer.socket.on('data', resolve));
});

test('one address holds half of the places, whatever it does with them; another is served', async () => {
  const { port } = await serve(4);
  const held = [await client(port, GET('/hold'), '127.0.0.2'), await client(port, GET('/hold'), '127.0.0.2')];
  await new Promise((resolve) => setTimeout(resolve, 50));
  const refused = await client(port, GET('/'), '127.0.0.2');
  expect(await refused.closed).toBe('');
  const other = await client(port, GET('/'), '127.0.0.3');
  await new Promise((resolve) => other.socket.on('data', resolve));
  expect(held.every(({ socket }) => !socket.destroyed)).toBe(true);
});

test('a body that comes drop by drop is given up, and its client told', { timeout: 60_000 }, async () => {
  const { server, port } = await serve(10);
  const slow = await client(port, 'POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n{');
  const drops = setInterval(() => slow.socket.write(' '), 500);
  open.push(() => clearInterval(drops));
  expect(await slow.closed).toMatch(/^HTTP\/1.1 408 .*REQUEST_TIMEOUT/s);
  clearInterval(drops);
  await until(async () => (await holders(server)) === 0);
});

test('a connection is promised for less long than it is kept, and what came in time is answered', async () => {
  const { server, port } = await serve(10);
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const { socket } = await client(port, GET('/'));
  const answered = () => new Promise<string>((resolve) => socket.once('data', (chunk) => resolve(String(chunk))));
  const [, promised] = /keep-alive: timeout=(\d+)/i.exec(await answered()) ?? [];
  expect(Number(promised) * 1000).toBeLessThan(server.timeout - 5000);
  // The clock of a process that was busy has run out before it has read what lies there.
  const again = answered();
  socket.write(GET('/'));
  server.emit('timeout', await accepted);
  expect(await again).toMatch(/^HTTP\/1.1 200/);
});

test('a server that closes waits for an answer that is on its way, and not for what its client may ask next', async () => {
  let finish = () => {};
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-length': 4 });
    response.write('half');
    finish = () => response.end();
  });
  watchConnections(server, 10);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const asking = await client((server.address() as AddressInfo).port, GET('/'));
  await new Promise((resolve) => asking.socket.once('data', resolve));
  // All of it has come, and the server has not said yet that it is all.
  const closed = new Promise((resolve) => server.close(resolve));
  finish();
  expect(await asking.closed).toMatch(/half$/);
  asking.socket.destroy();
  await closed;
});
