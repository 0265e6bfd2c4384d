/** Streamed pictures of the OpenAI Images API: previews while they are drawn, then the pictures. */
import { type CodedError, toCodedError } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Backend } from '../backend.js';
import { errorBody } from '../contract/dialect-errors.js';
import { EventStream } from '../event-stream.js';
import { cancelWhenGone } from '../orders.js';
import { enlargePreview, pictureOfJob } from '../pictures/pictures.js';
import { encodingOf, type ImagesRequest, usageOf } from './request.js';

/**
 * Of the previews that a worker sends, which one is the `index`th of `count`: they lie evenly between the first step
 * and the picture.
 */
function isDue({ step, steps }: { step: number; steps: number }, index: number, count: number): boolean {
  return index < count && step / steps >= (index + 1) / (count + 1) - 1e-9;
}

export async function streamPictures(
  backend: Backend,
  request: FastifyRequest,
  reply: FastifyReply,
  jobs: Job[],
  body: ImagesRequest,
): Promise<void> {
  const kind = jobs[0]?.initImage === null ? 'image_generation' : 'image_edit';
  const encoding = encodingOf(body);
  const count = body.partial_images ?? 0;
  const onEnd = () => {
    for (const stop of listening) stop();
  };
  const stream = new EventStream(reply, onEnd, { pendingMax: Number.POSITIVE_INFINITY });
  const send = (name: string, job: Job, picture: Buffer, more: object) => {
    const type = `${kind}.${name}`;
    const { width, height } = job;
    const shared = { background: 'opaque', output_format: encoding.format, quality: body.quality ?? 'auto' };
    const size = `${width}x${height}`;
    const created_at = Math.floor(Date.now() / 1000);
    stream.send(type, { type, b64_json: picture.toString('base64'), created_at, size, ...shared, ...more });
  };
  // Pictures are encoded one after the other, so that they come in the order of what they show.
  let tail: Promise<unknown> = Promise.resolve();
  const listening = jobs.map((job) => {
    let index = 0;
    return backend.listenToJob(job.id, (event) => {
      if (event.type !== 'step' || !event.preview || !isDue(event, index, count)) return;
      const [partial, preview] = [index++, event.preview];
      tail = tail
        .then(async () =>
          send('partial_image', job, await enlargePreview(preview, job, encoding), { partial_image_index: partial }),
        )
        .catch((error: Error) => console.error(`preview not sent: ${error.message}`));
    });
  });
  cancelWhenGone(backend, request, reply, jobs);
  let [drawn, failure]: [number, CodedError | null] = [0, null];
  for (const { id } of jobs) {
    try {
      const job = await backend.waitForEnd(id);
      const picture = await pictureOfJob(backend, job, encoding);
      await tail;
      send('completed', job, picture, { usage: usageOf([job]) });
      drawn++;
    } catch (error) {
      failure ??= toCodedError(error);
    }
  }
  // One that failed does not cost the others.
  if (failure && drawn === 0) stream.send('error', errorBody(request.url, failure));
  stream.end();
}
