/** What can be done with jobs. The event is the answer: nothing is changed here before the server says so. */
import type { Job } from '@qwen-supervisor/protocol/job';
import type { NativeRequest } from '@qwen-supervisor/protocol/job-request';
import { call, ROOT } from '../api/http';
import { send } from '../live/outbox';
import { useLive } from '../live/store';
import { copyText } from '../platform/clipboard';
import { download } from '../platform/download';
import { newId, newSeed } from '../platform/ids';
import { go } from '../platform/place';
import { fromJob, toRequests, whyNot } from '../screens/create/form';
import { replaceForm, sent, useForm } from '../screens/create/form-store';
import { tell, tellError } from './ui';

const PRIORITY_MAX = 100;

/** @param first before all that wait */
export function sendForm(first = false): void {
  const { form } = useForm.getState();
  const { state } = useLive.getState();
  if (!state || whyNot(form, state.model) !== null) return;
  const most = Math.max(0, ...state.queue.map(({ priority }) => priority));
  const priority = first ? { priority: Math.min(PRIORITY_MAX, most + 1) } : {};
  send(toRequests(form, state.model).map((request) => ({ ...request, ...priority })));
  sent(form.prompt);
}

export function cancel(id: string): Promise<void> {
  return asked('POST', `api/v1/jobs/${id}/cancel`);
}

/** Ends it with the picture that it has reached. */
export function finishNow(id: string): Promise<void> {
  return asked('POST', `api/v1/jobs/${id}/interrupt`);
}

export function cancelScope(scope: { scope: 'running' | 'queued' }): Promise<void> {
  return asked('POST', 'api/v1/jobs/cancel', scope);
}

export function retry(id: string): Promise<void> {
  return asked('POST', `api/v1/jobs/${id}/retry`, undefined, { 'idempotency-key': newId() });
}

export type Move = 'first' | 'up' | 'down' | 'last';

/** Within the queue as it is known; beyond its end by the number of places that are known. */
export function move(id: string, to: Move): Promise<void> {
  const queue = useLive.getState().state?.queue ?? [];
  const at = queue.findIndex((job) => job.id === id);
  const job = queue[at];
  if (!job) return Promise.resolve();
  const others = queue.filter((one) => one.id !== id);
  const place = { first: 0, up: at - 1, down: at + 1, last: others.length }[to];
  return moveTo(job, others, Math.max(0, place));
}

/** On connections of their own two moves of one moment may arrive in either order: the second waits for the first. */
let moving: Promise<void> = Promise.resolve();

/** Before the one that has the place now. */
export function moveTo(job: Job, others: readonly Job[], place: number): Promise<void> {
  const before = others[place];
  // Behind all: those of the last one's priority are before it then.
  const body = before ? { before: before.id } : { priority: others.at(-1)?.priority ?? job.priority };
  const send = () => asked('PATCH', `api/v1/jobs/${job.id}`, body);
  moving = moving.then(send, send);
  return moving;
}

export function useSettings(job: Job, withSeed: boolean): void {
  replaceForm((form) => fromJob(job, form, withSeed, ROOT));
  go('/');
}

/** With another seed: the same one would be the same picture. */
export function sameAgain(job: Job): void {
  send([{ ...requestAgain(job), seed: newSeed() }]);
  tell('Sent once more, with another seed.');
}

/** In one act: this one is not what was wanted. */
export function cancelAndSendAgain(job: Job): void {
  send([{ ...requestAgain(job), seed: newSeed(), priority: PRIORITY_MAX }]);
  void cancel(job.id);
}

/** What was asked for, as it is asked for; pictures by the names that the server has for them. */
function requestAgain(job: Job): NativeRequest {
  const { prompt, negativePrompt, width, height, numInferenceSteps, trueCfgScale, initImage, strength, mask } = job;
  return {
    prompt,
    negativePrompt,
    width,
    height,
    numInferenceSteps,
    trueCfgScale,
    ...(initImage === null ? {} : { initImage }),
    ...(strength === null ? {} : { strength }),
    ...(mask === null ? {} : { mask }),
  };
}

export function useAsInput(job: Job): void {
  const [image] = job.images;
  if (!image) return;
  const source = { value: image.id, shown: `${ROOT}api/v1/images/${image.id}/thumbnail?size=512` };
  useForm.setState(({ form }) => ({ form: { ...form, source, size: { width: job.width, height: job.height } } }));
  go('/');
}

export async function copyPrompt(job: Job): Promise<void> {
  if (await copyText(job.prompt)) tell('Prompt copied.');
  else
    tell('This browser does not let the page copy. Select the prompt in the details and copy it there.', {
      tone: 'bad',
    });
}

/** For a message to whoever runs the server. */
export async function copyReport(job: Job): Promise<void> {
  const { status, version } = useLive.getState().state ?? {};
  const report = JSON.stringify({ version, device: status?.device, model: status?.model.id, job }, null, 1);
  if (await copyText(report)) tell('Report copied.');
  else tell('This browser does not let the page copy.', { tone: 'bad' });
}

export function downloadPicture(id: string): void {
  download(`${ROOT}api/v1/images/${id}`, `${id}.png`);
}

/** What fails is told; what works is seen. */
export async function asked(
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<void> {
  await call(method, path, { body, headers }).catch(tellError);
}
