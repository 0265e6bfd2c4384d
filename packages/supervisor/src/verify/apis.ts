/** A picture through each API of a server, as its clients ask for it. */
import { createHash } from 'node:crypto';
import type { ModelAnswer } from '@qwen-supervisor/protocol/answers';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { isTerminal, type Job, pictureOf } from '@qwen-supervisor/protocol/job';

export interface Server {
  url: string;
  /** Null where the server asks for none. */
  key: string | null;
}

/** The same of every API. */
export interface Wish {
  prompt: string;
  width: number;
  height: number;
  steps: number;
  scale: number;
  seed: number;
}

export interface Drawn {
  png: Buffer;
  jobId: string;
}

/** Small and quick, whatever the model is. */
const SIDE_MAX = 512;
const STEPS = 2;

export function smallWish({ defaults, distilled }: ModelAnswer): Wish {
  const side = (pixels: number) => Math.min(pixels, SIDE_MAX);
  return {
    prompt: 'a fox on a teal background',
    width: side(defaults.width),
    height: side(defaults.height),
    steps: distilled ? Math.min(...distilled.steps) : STEPS,
    scale: distilled ? 1 : defaults.trueCfgScale,
    seed: 3,
  };
}

export const APIS: Record<string, (server: Server, wish: Wish) => Promise<Drawn>> = {
  'native API': async (server, { steps, scale, ...wish }) => {
    const job = await submit(server, { ...wish, numInferenceSteps: steps, trueCfgScale: scale });
    return pictureOfJob(server, await jobEnd(server, job.id));
  },
  'OpenAI API': async (server, { prompt, width, height, steps, scale, seed }) => {
    const size = `${width}x${height}`;
    const body = { prompt, size, seed, num_inference_steps: steps, true_cfg_scale: scale, response_format: 'b64_json' };
    const { json, jobId } = await post<{ data: { b64_json: string }[] }>(server, '/v1/images/generations', body);
    return { png: Buffer.from(json.data[0]?.b64_json ?? '', 'base64'), jobId };
  },
  'A1111 API': async (server, { prompt, width, height, steps, scale, seed }) => {
    const body = { prompt, width, height, steps, cfg_scale: scale, seed };
    const { json, jobId } = await post<{ images: string[] }>(server, '/sdapi/v1/txt2img', body);
    return { png: Buffer.from(json.images[0] ?? '', 'base64'), jobId };
  },
  "first launcher's API": async (server, { prompt, width, height, steps, scale, seed }) => {
    const body = { prompt, width, height, num_inference_steps: steps, cfg_scale: scale, seed };
    const { json, jobId } = await post<{ image_path: string | null; message: string }>(
      server,
      '/generate/text-to-image',
      body,
    );
    if (json.image_path === null) throw new CodedError('VERIFY_FAILED', json.message);
    const png = await fetchOk(server, `/images/${json.image_path.split('/').at(-1)}`);
    return { png: Buffer.from(await png.arrayBuffer()), jobId };
  },
};

/** A digest of the pixels as they are compressed: texts beside them tell of the job. Reference: PNG, chunk layout. */
export function pixelsOf(png: Buffer): string {
  const digest = createHash('sha256');
  for (let at = 8; at + 8 <= png.length; ) {
    const length = png.readUInt32BE(at);
    if (png.toString('latin1', at + 4, at + 8) === 'IDAT') digest.update(png.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  return digest.digest('hex');
}

/** @throws CodedError VERIFY_FAILED where it is no PNG of this size */
export function requireSize(png: Buffer, { width, height }: Pick<Wish, 'width' | 'height'>): void {
  const isPng = png.length > 24 && png.toString('latin1', 1, 4) === 'PNG';
  if (!isPng) throw new CodedError('VERIFY_FAILED', 'the answer has no PNG in it');
  const [gotWidth, gotHeight] = [png.readUInt32BE(16), png.readUInt32BE(20)];
  if (gotWidth !== width || gotHeight !== height)
    throw new CodedError('VERIFY_FAILED', `the picture has ${gotWidth}x${gotHeight} instead of ${width}x${height}`);
}

export async function submit(server: Server, request: object): Promise<Job> {
  return (await post<Job>(server, '/api/v1/jobs', request)).json;
}

export async function jobEnd(server: Server, id: string): Promise<Job> {
  for (;;) {
    await eventsUntil(server, id, () => false);
    const job = await get<Job>(server, `/api/v1/jobs/${id}`);
    if (isTerminal(job.status)) return job;
  }
}

/** Reads the events of a job until it ends, or `enough` says so of what was read. */
export async function eventsUntil(server: Server, id: string, enough: (events: string) => boolean): Promise<void> {
  const { body } = await fetchOk(server, `/api/v1/jobs/${id}/events`);
  const decoder = new TextDecoder();
  let events = '';
  for await (const chunk of body as ReadableStream<Uint8Array>) {
    events += decoder.decode(chunk, { stream: true });
    if (enough(events)) return;
  }
}

export async function pictureOfJob(server: Server, job: Job): Promise<Drawn> {
  const image = pictureOf(job);
  const response = await fetchOk(server, `/api/v1/images/${image.id}`);
  return { png: Buffer.from(await response.arrayBuffer()), jobId: job.id };
}

export async function get<T>(server: Server, path: string): Promise<T> {
  return jsonOf<T>(await fetchOk(server, path));
}

async function post<T>(server: Server, path: string, body: object): Promise<{ json: T; jobId: string }> {
  const response = await fetchOk(server, path, { method: 'POST', body: JSON.stringify(body) });
  return { json: await jsonOf<T>(response), jobId: response.headers.get('x-job-id') ?? '' };
}

async function jsonOf<T>(response: Response): Promise<T> {
  const text = await response.text();
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw new CodedError('VERIFY_FAILED', `${response.url} answers no JSON: ${text.slice(0, 100)}`, { cause });
  }
}

/** @throws CodedError VERIFY_FAILED for whatever keeps an answer from being a good one */
export async function fetchOk({ url, key }: Server, path: string, init: RequestInit = {}): Promise<Response> {
  const headers = {
    'content-type': 'application/json',
    ...(key === null ? {} : { authorization: `Bearer ${key}` }),
  };
  const response = await fetch(url + path, { ...init, headers }).catch((cause: Error) => {
    const why = (cause.cause as Error | undefined)?.message ?? cause.message;
    throw new CodedError('VERIFY_FAILED', `${url}${path}: ${why}`, { cause });
  });
  if (response.ok) return response;
  const text = (await response.text()).slice(0, 500);
  throw new CodedError('VERIFY_FAILED', `${path} answers ${response.status}: ${text}`);
}
