/**
 * Answers that take longer than clients wait. Many give a connection up on which nothing came for five minutes (Node's
 * `fetch`, aiohttp, and with them most that are built on these): before that the answer begins, and goes on with white
 * space, which JSON ignores. Its status is 200 then, whatever comes; an error still is the body.
 */
import { toCodedError } from '@qwen-supervisor/protocol/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { errorBody } from './contract/dialect-errors.js';

const BEGIN_MS = 240_000;
const AGAIN_MS = 30_000;

/** What `work` gives, as the answer. @throws what `work` does, as long as that can still be said with a status */
export async function answerPatiently(
  request: FastifyRequest,
  reply: FastifyReply,
  work: Promise<object>,
  beginMs = BEGIN_MS,
): Promise<object | undefined> {
  const { raw } = reply;
  let again: NodeJS.Timeout | undefined;
  const begin = setTimeout(() => {
    // Whatever goes wrong with the connection, the client is gone, and its jobs are seen to.
    raw.on('error', () => {});
    const headers = reply.getHeaders() as Record<string, string>;
    reply.hijack();
    raw.writeHead(200, { ...headers, 'content-type': 'application/json; charset=utf-8' });
    raw.write(' ');
    again = setInterval(() => raw.write(' '), AGAIN_MS);
  }, beginMs);
  try {
    const body = await work;
    if (again === undefined) return body;
    raw.end(JSON.stringify(body));
  } catch (error) {
    if (again === undefined) throw error;
    raw.end(JSON.stringify(errorBody(request.url, toCodedError(error))));
  } finally {
    clearTimeout(begin);
    clearInterval(again);
  }
  return undefined;
}
