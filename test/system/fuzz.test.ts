/**
 * Every route of the OpenAPI document, with requests that fit it, nearly fit it, or do not at all. Whatever comes,
 * the answer is one that the document tells of, nothing leaks, and no process dies.
 *
 *   FUZZ_SEED=17 npx vitest run test/system/fuzz.test.ts     replays one run
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc, { type Arbitrary } from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { REPOSITORY } from '../fixture-files.js';
import { type Product, startProduct } from './product.js';

/** The same ones each time, unless many are wanted. */
const SEED = Number(process.env.FUZZ_SEED ?? (process.env.FULL ? Math.floor(Math.random() * 2 ** 31) : 1));
const RUNS = process.env.FULL ? 300 : 60;

interface Schema {
  type?: string | string[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  items?: Schema;
  prefixItems?: Schema[];
  enum?: unknown[];
  const?: unknown;
  anyOf?: Schema[];
  oneOf?: Schema[];
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
}
interface Operation {
  parameters?: { name: string; in: 'path' | 'query' | 'header'; schema: Schema }[];
  requestBody?: { content: Record<string, { schema: Schema }> };
  responses: Record<string, unknown>;
}

const FOX = readFileSync(join(REPOSITORY, 'docs/fox.png'));

let product: Product;
let operations: [method: string, path: string, operation: Operation][];
let jobId: string;
let pids: (number | null)[];
beforeAll(async () => {
  product = await startProduct(['--max-steps', '20', '--max-pixels', '16384', '--max-queued', '30']);
  await product.ready();
  const { paths } = (await product.call('/openapi.json')).json as { paths: Record<string, Record<string, Operation>> };
  operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]): (typeof operations)[number] => [method, path, operation]),
  );
  pids = (await product.status()).children.map(({ pid }) => pid);
});
afterAll(() => product.clean());

const NASTY_TEXT = [
  '',
  ' ',
  '\0',
  '../../etc/passwd',
  "'; DROP TABLE jobs; --",
  '{{7*7}}',
  '💥'.repeat(50),
  '<svg onload=alert(1)>',
  'a'.repeat(21_000),
];
const text = fc.oneof(fc.string(), fc.constantFrom(...NASTY_TEXT), fc.constant('a fox'));
const anything = fc.oneof(
  fc.jsonValue(),
  text,
  fc.constantFrom<unknown>(null, -1, 0, 1e308, -0.5, 2 ** 53, [], {}, [[]], true),
);

/** Values that fit a schema, mostly. */
function valueFor(schema: Schema): Arbitrary<unknown> {
  return fc.oneof({ weight: 9, arbitrary: fitting(schema) }, { weight: 1, arbitrary: anything });
}

function fitting(schema: Schema): Arbitrary<unknown> {
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.enum) return fc.constantFrom(...schema.enum);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return fc.oneof(...choices.map(valueFor));
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  const [min, max] = [schema.minimum ?? -1e6, schema.maximum ?? 1e6];
  switch (type) {
    case 'integer':
      return fc.oneof(
        fc.integer({ min: Math.max(min, -(2 ** 53)), max: Math.min(max, 2 ** 53 - 1) }),
        fc.constantFrom(16, 64, 128),
      );
    case 'number':
      return fc.oneof(fc.double({ min, max, noNaN: true }), fc.constantFrom(64, 100, 0.5));
    case 'boolean':
      return fc.boolean();
    case 'null':
      return fc.constant(null);
    case 'string':
      return fc.oneof(text, fc.constant(jobId));
    case 'array':
      return schema.prefixItems
        ? fc.tuple(...schema.prefixItems.map(valueFor))
        : fc.array(valueFor(schema.items ?? {}), { maxLength: 3 });
    case 'object': {
      const fields = Object.fromEntries(
        Object.entries(schema.properties ?? {}).map(([name, field]) => [name, valueFor(field)]),
      );
      return fc
        .tuple(fc.record(fields, { requiredKeys: [] }), fc.dictionary(fc.string(), anything, { maxKeys: 1 }))
        .chain(([known, unknown]) => fc.boolean().map((clean) => (clean ? known : { ...unknown, ...known })));
    }
    default:
      return anything;
  }
}

/** The least that fits, with a picture where the route wants one. */
function clean(schema: Schema): unknown {
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return clean(choices[0] as Schema);
  switch (Array.isArray(schema.type) ? schema.type[0] : schema.type) {
    case 'array':
      return [clean(schema.items ?? {})];
    case 'object': {
      const wanted = Object.entries(schema.properties ?? {}).filter(([name]) => schema.required?.includes(name));
      const picture = ['init_image', 'init_images'].filter((name) => schema.properties?.[name]);
      return Object.fromEntries([
        ...wanted.map(([name, field]) => [name, clean(field)]),
        ...picture.map((name) => [name, name === 'init_images' ? [FOX.toString('base64')] : FOX.toString('base64')]),
      ]);
    }
    case 'string':
      return 'a fox';
    default:
      return 16;
  }
}

interface Sent {
  url: string;
  body: string | FormData | undefined;
}

function requestFor(path: string, { parameters = [], requestBody }: Operation): Arbitrary<Sent> {
  const value = (schema: Schema) =>
    valueFor(schema).map((sent) => (typeof sent === 'object' ? JSON.stringify(sent) : String(sent)));
  const inPath = parameters
    .filter((one) => one.in === 'path')
    .map(({ name, schema }) =>
      fc.oneof(fc.constant(jobId), value(schema)).map((sent): [string, string] => [name, sent]),
    );
  const inQuery = parameters
    .filter((one) => one.in === 'query')
    .map(({ name, schema }) => fc.option(value(schema)).map((sent): [string, string | null] => [name, sent]));
  const [[type, { schema }] = ['', { schema: undefined }]] = Object.entries(requestBody?.content ?? {});
  const form = fc
    .oneof(fitting(schema ?? {}), fc.constant(clean(schema ?? {})))
    .map((sent) => toForm(sent as Record<string, unknown>));
  const json = fc
    .oneof(
      { weight: 1, arbitrary: fc.constant(schema && clean(schema)) },
      { weight: 3, arbitrary: schema ? valueFor(schema) : fc.constant(undefined) },
    )
    .map((sent) => JSON.stringify(sent));
  const body: Arbitrary<Sent['body']> = schema
    ? fc.oneof({ weight: 9, arbitrary: type.startsWith('multipart') ? form : json }, { weight: 1, arbitrary: text })
    : fc.oneof(fc.constant(undefined), text);
  return fc.tuple(fc.tuple(...inPath), fc.tuple(...inQuery), body).map(([ids, queries, sent]) => {
    const filled = ids.reduce(
      (url, [name, id]) => url.replace(`{${name}}`, encodeURIComponent(id.replace(/[\ud800-\udfff]/g, ''))),
      path,
    );
    const query = new URLSearchParams(queries.filter((pair): pair is [string, string] => pair[1] !== null));
    return { url: query.size === 0 ? filled : `${filled}?${query}`, body: sent };
  });
}

/** A picture among the fields, mostly one that can be read. */
function toForm(fields: Record<string, unknown>): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (name === 'image') continue;
    form.append(name, typeof value === 'object' ? JSON.stringify(value) : String(value));
  }
  const bytes = String(fields.image).length % 3 === 0 ? Buffer.from(String(fields.image)) : FOX;
  form.append('image', new Blob([bytes]), String(fields.image).slice(0, 20));
  return form;
}

async function newJob(): Promise<string> {
  const { id } = await product.submit({ prompt: 'a fox', width: 16, height: 16, numInferenceSteps: 1 });
  await product.ended(id);
  return id;
}

/** What a job that is done, a server without keys and a model by another name never allow. */
const NEVER = new Set([
  'patch /api/v1/jobs/{id}',
  'post /api/v1/jobs/{id}/retry',
  'post /api/v1/supervisor/restart',
  'post /api/v1/machines/{name}/drain',
  'post /api/v1/machines/{name}/resume',
  'post /api/v1/models/{id}/load',
  'post /api/v1/models/{id}/unload',
  'get /api/v1/inputs/{sha256}',
  'delete /queue/{id}',
]);

const LEAKS = /\bat (async )?[\w.<>]+ \(|node_modules|\.js:\d+|SQLITE|ECONN|ENOENT/;

/** Gives the status. */
async function send(method: string, path: string, operation: Operation, { url, body }: Sent): Promise<number> {
  const abort = new AbortController();
  const init = { method: method.toUpperCase(), signal: abort.signal, redirect: 'manual' as const };
  const response = await product.fetch(url, body === undefined || method === 'get' ? init : { ...init, body });
  const documented = Object.keys(operation.responses).map(Number);
  // An id with a slash in it, or none at all, is another address.
  const elsewhere = path.includes('{') && [404, 405].includes(response.status);
  const shown = `${method} ${url.slice(0, 200)} ${typeof body === 'string' ? body.slice(0, 300) : body}`;
  if (!elsewhere && response.status !== 302)
    expect(documented, `${shown} answered ${response.status}`).toContain(response.status);
  expect([500, 502, 504], shown).not.toContain(response.status);
  if (response.headers.get('content-type')?.startsWith('text/event-stream')) {
    abort.abort();
    return response.status;
  }
  const answer = await response.text();
  if (response.status < 400) return response.status;
  expect(answer, shown).not.toMatch(LEAKS);
  expect(answer, shown).not.toContain(product.dataDir);
  expect(() => JSON.parse(answer), shown).not.toThrow();
  return response.status;
}

test('every route answers every request as the document says', async () => {
  for (const [method, path, operation] of operations) {
    jobId = await newJob();
    let answered = 0;
    const property = fc.asyncProperty(requestFor(path, operation), async (sent) => {
      if ((await send(method, path, operation, sent)) < 400) answered++;
    });
    await fc.assert(property, { numRuns: RUNS, seed: SEED, endOnFailure: true });
    if (!NEVER.has(`${method} ${path}`))
      expect(answered, `${method} ${path} was never answered with what was asked for`).toBeGreaterThan(0);
    // What was accepted is not of interest, and must not fill the queue.
    for (const scope of ['queued', 'running']) await product.call('/api/v1/jobs/cancel', { scope });
  }
  const { children } = await product.status();
  expect(children.map(({ name, restarts }) => [name, restarts])).toEqual([
    ['inference', 0],
    ['api', 0],
  ]);
  expect(children[1]?.pid, 'the same API process').toBe(pids[1]);
  await product.ready();
  expect(await product.ended((await product.submit({ prompt: 'a fox', numInferenceSteps: 1 })).id)).toMatchObject({
    status: 'done',
  });
}, 300_000);
