/** What A1111's clients ask before they draw: options, models, samplers and the like; and a few deeds. */
import { freemem, totalmem } from 'node:os';
import { PARAMETERS } from '@qwen-supervisor/protocol/picture-text';
import { readPngTexts } from '@qwen-supervisor/protocol/png-text';
import { z } from 'zod';
import type { Backend } from '../backend.js';
import { sdapiAnswers } from '../contract/dialect-errors.js';
import type { App } from '../contract/schemas.js';
import { decodeBase64 } from '../pictures/uploads.js';

/** The one sampler of the pipeline, whatever name a client sends. */
export const SAMPLER = 'Euler';

/** Lists that do not depend on anything. What is not there is an empty list, so that clients offer nothing of it. */
const CONSTANT = {
  samplers: [{ name: SAMPLER, aliases: ['euler', 'k_euler'], options: {} }],
  schedulers: [
    { name: 'automatic', label: 'Automatic', aliases: null, default_rho: -1, need_inner_model: false },
    { name: 'flow_match', label: 'Flow match', aliases: null, default_rho: -1, need_inner_model: false },
  ],
  upscalers: [{ name: 'None', model_name: null, model_path: null, model_url: null, scale: 4 }],
  'latent-upscale-modes': [],
  'sd-vae': [],
  loras: [],
  embeddings: { loaded: {}, skipped: {} },
  hypernetworks: [],
  'face-restorers': [],
  'realesrgan-models': [],
  'prompt-styles': [],
  scripts: { txt2img: [], img2img: [] },
  'script-info': [],
  extensions: [],
  'sd-modules': [],
  'cmd-flags': {},
};

export function sdapiLists(app: App, backend: Backend): void {
  const { link } = backend;
  const tags = ['sdapi'];

  for (const [name, value] of Object.entries(CONSTANT)) {
    const schema = { tags, summary: `The ${name}`, response: sdapiAnswers({ 200: z.unknown() }) };
    app.get(`/sdapi/v1/${name}`, { schema }, async (_request, reply) => reply.send(value));
  }

  const options = () => ({
    sd_model_checkpoint: backend.welcome.model.id,
    sd_checkpoint_hash: null,
    sd_vae: 'Automatic',
    samples_format: 'png',
    CLIP_stop_at_last_layers: 1,
    eta_noise_seed_delta: 0,
  });

  app.get(
    '/sdapi/v1/options',
    { schema: { tags, summary: 'Options', response: sdapiAnswers({ 200: z.object({}).loose() }) } },
    options,
  );

  app.post(
    '/sdapi/v1/options',
    {
      schema: {
        tags,
        summary: 'Taken and not kept: there is one model, and requests say all that matters',
        body: z.object({}).loose(),
        response: sdapiAnswers({ 200: z.object({}).loose() }, 'BODY_INVALID'),
      },
    },
    () => ({}),
  );

  app.get(
    '/sdapi/v1/sd-models',
    { schema: { tags, summary: 'The model', response: sdapiAnswers({ 200: z.array(z.object({}).loose()) }) } },
    () => {
      const { id, folder } = backend.welcome.model;
      return [{ title: id, model_name: id, hash: null, sha256: null, filename: folder, config: null }];
    },
  );

  app.get(
    '/sdapi/v1/memory',
    { schema: { tags, summary: 'Memory of this machine', response: sdapiAnswers({ 200: z.object({}).loose() }) } },
    async () => {
      const { children } = await link.request('status', {});
      const device = children.reduce((sum, child) => sum + child.deviceBytes, 0);
      const [free, total] = [freemem(), totalmem()];
      return {
        ram: { free, used: total - free, total },
        cuda: device === 0 ? { error: 'no graphics device is used' } : { allocated: { current: device, peak: device } },
      };
    },
  );

  app.post(
    '/sdapi/v1/png-info',
    {
      bodyLimit: backend.settings.maxUploadBytes,
      schema: {
        tags,
        summary: 'What a PNG says about how it was made',
        body: z.object({ image: z.string() }),
        response: sdapiAnswers({ 200: z.object({}).loose() }, 'BODY_INVALID', 'BODY_TOO_LARGE', 'UPLOAD_INVALID'),
      },
    },
    ({ body }) => {
      const items = readPngTexts(decodeBase64(body.image));
      const info = items[PARAMETERS] ?? '';
      return { info, items: { ...items }, parameters: parseInfotext(info) };
    },
  );

  app.post(
    '/sdapi/v1/unload-checkpoint',
    {
      schema: {
        tags,
        summary: "Give the model's memory back",
        response: sdapiAnswers({ 200: z.object({}) }, 'MODEL_IN_USE'),
      },
    },
    async () => {
      await link.request('unloadModel', {});
      return {};
    },
  );

  for (const name of ['refresh-loras', 'refresh-vae', 'refresh-embeddings']) {
    const schema = { tags, summary: 'There is nothing of it', response: sdapiAnswers({ 200: z.object({}) }) };
    app.post(`/sdapi/v1/${name}`, { schema }, () => ({}));
  }

  // Of the page's own server, Gradio: by these clients see that somebody is there.
  const page = (path: string, summary: string, answer: () => object | Promise<object>) => {
    const schema = { tags, summary, response: sdapiAnswers({ 200: z.object({}).loose() }) };
    app.get(path, { schema }, async (_request, reply) => reply.send(await answer()));
  };
  page('/internal/ping', 'That it lives', () => ({}));
  page('/app_id', 'Of this run', () => ({ app_id: backend.welcome.run }));
  page('/config', 'There is no page of Gradio', () => ({ version: backend.welcome.version, components: [] }));
  page('/queue/status', 'How many wait', async () => {
    const { queue } = await link.request('status', {});
    const queue_size = queue.queued + queue.running;
    return { msg: 'estimation', rank: null, queue_size, avg_event_process_time: null, rank_eta: null, queue_eta: 0 };
  });

  for (const name of ['reload-checkpoint', 'refresh-checkpoints']) {
    app.post(
      `/sdapi/v1/${name}`,
      { schema: { tags, summary: 'Load the model', response: sdapiAnswers({ 200: z.object({}) }, 'WORKER_FAILED') } },
      async () => {
        if (name === 'reload-checkpoint') await link.request('loadModel', {});
        return {};
      },
    );
  }
}

/** Settings that are read of a picture: A1111 writes some dozens. */
const SETTINGS_MAX = 200;

/** The settings of the last line, by name. */
function parseInfotext(text: string): Record<string, string> {
  const lines = text.split('\n');
  const last = /^Steps: /.test(lines.at(-1) ?? '') ? (lines.pop() as string) : '';
  const negativeAt = lines.findIndex((line) => line.startsWith('Negative prompt: '));
  const prompt = (negativeAt < 0 ? lines : lines.slice(0, negativeAt)).join('\n');
  const negative = negativeAt < 0 ? '' : lines.slice(negativeAt).join('\n').replace('Negative prompt: ', '');
  const settings = last.split(', ', SETTINGS_MAX).map((setting) => setting.split(': ', 2));
  return Object.fromEntries([
    ['Prompt', prompt],
    ['Negative prompt', negative],
    ...settings.filter((pair) => pair.length === 2),
  ]);
}
