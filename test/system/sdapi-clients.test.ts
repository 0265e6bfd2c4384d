/**
 * A1111's dialect, by the requests that Open WebUI, SillyTavern and the Python package webuiapi really send; bodies
 * are those of their sources.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Job } from '@qwen-supervisor/protocol/job';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { REPOSITORY } from '../fixture-files.js';
import { type Product, startProduct, until } from './product.js';

const PROMPT = 'a fox on a teal background';
const FOX = readFileSync(join(REPOSITORY, 'docs/fox.png')).toString('base64');

let product: Product;
beforeAll(async () => {
  product = await startProduct();
});
afterAll(() => product.clean());

interface Progress {
  progress: number;
  eta_relative: number;
  state: { job_count: number; sampling_step: number; sampling_steps: number; job: string };
  current_image: string | null;
  textinfo: string | null;
}
interface Pictures {
  images: string[];
  parameters: Record<string, unknown>;
  info: string;
}

const get = async <T>(path: string) => (await product.call(`/sdapi/v1/${path}`)).json as T;
const post = async <T>(path: string, body: unknown) => (await product.call(`/sdapi/v1/${path}`, body)).json as T;
const sizeOf = async (base64: string | undefined) => {
  const { width, height, format } = await sharp(Buffer.from(base64 ?? '', 'base64')).metadata();
  return [width, height, format];
};
const idle = ({ progress, state }: Progress) => progress === 0 && state.job_count === 0;

test('while the model loads, progress says so: a client that waits for idle goes on waiting', async () => {
  const seen: Progress[] = [];
  await until(async () => {
    seen.push(await get<Progress>('progress'));
    return idle(seen.at(-1) as Progress) ? true : null;
  });
  const loading = seen.find(({ textinfo }) => textinfo?.startsWith('loading the model'));
  expect(loading).toMatchObject({ progress: expect.any(Number), state: { job_count: 1 }, current_image: null });
  expect((await product.status()).model.state).toBe('ready');
});

describe('Open WebUI', () => {
  test('reads the options, sends the whole of them back with another model, and finds the models', async () => {
    const options = await get<Record<string, unknown>>('options');
    expect(options).toMatchObject({ sd_model_checkpoint: 'pocket' });
    const { status } = await product.call('/sdapi/v1/options', { ...options, sd_model_checkpoint: 'other' });
    expect(status).toBe(200);
    expect(await get('options'), 'there is one model').toMatchObject({ sd_model_checkpoint: 'pocket' });
    expect(await get('sd-models')).toMatchObject([{ title: 'pocket', model_name: 'pocket' }]);
  });

  test('gets pictures and their info for its request', async () => {
    const body = { prompt: PROMPT, batch_size: 2, width: 128, height: 128, steps: 4, negative_prompt: null };
    const { images, info } = await post<Pictures>('txt2img', body);
    expect(images).toHaveLength(2);
    expect(JSON.parse(info)).toMatchObject({
      prompt: PROMPT,
      steps: 4,
      all_seeds: [expect.any(Number), expect.any(Number)],
    });
  });
});

describe('SillyTavern', () => {
  test('pings, lists, sets the model, waits for idle and draws', async () => {
    await get('options');
    for (const list of ['sd-models', 'samplers', 'schedulers', 'upscalers', 'latent-upscale-modes', 'sd-vae'])
      expect(await get(list), list).toBeInstanceOf(Array);
    await post('options', { sd_model_checkpoint: 'pocket' });
    await until(async () => (idle(await get<Progress>('progress')) ? true : null));
    const { images } = await post<Pictures>('txt2img', {
      prompt: PROMPT,
      negative_prompt: '',
      sampler_name: 'Euler a',
      scheduler: 'automatic',
      steps: 4,
      cfg_scale: 4,
      width: 100,
      height: 140,
      restore_faces: false,
      enable_hr: false,
      hr_upscaler: 'Latent',
      hr_scale: 2,
      hr_additional_modules: [],
      denoising_strength: 0.7,
      hr_second_pass_steps: 0,
      seed: -1,
      override_settings: { CLIP_stop_at_last_layers: 1, sd_vae: 'Automatic' },
      override_settings_restore_afterwards: true,
      clip_skip: 1,
      save_images: true,
      send_images: true,
      do_not_save_grid: false,
      do_not_save_samples: false,
    });
    expect(await sizeOf(images[0]), 'sides in steps of 16').toEqual([96, 144, 'png']);
  });

  test('as sdcpp pings by OPTIONS, lists models as OpenAI does, and draws as A1111', async () => {
    expect((await product.fetch('/v1/images/generations', { method: 'OPTIONS' })).ok).toBe(true);
    expect((await product.call('/v1/models')).json).toMatchObject({
      data: expect.arrayContaining([expect.objectContaining({ id: 'pocket' })]),
    });
    expect((await post<Pictures>('txt2img', { prompt: PROMPT, steps: 2 })).images).toHaveLength(1);
  });

  test('hears of every step, and gets the picture of the step at which it interrupts', async () => {
    const drawing = post<Pictures>('txt2img', { prompt: PROMPT, steps: 900, seed: 7 });
    const seen = await until(async () => {
      const progress = await get<Progress>('progress');
      return progress.state.sampling_step > 180 && progress.current_image ? progress : null;
    });
    expect(seen).toMatchObject({ state: { sampling_steps: 900, job_count: 1, job: expect.stringMatching(/^job_/) } });
    expect(seen.progress).toBeCloseTo(seen.state.sampling_step / 900, 1);
    expect(seen.eta_relative).toBeGreaterThan(0);
    expect((await sizeOf(seen.current_image as string))[2]).toBe('png');
    expect((await get<Progress>('progress?skip_current_image=true')).current_image).toBeNull();
    const { status, json } = await product.call('/sdapi/v1/interrupt', '');
    expect([status, json]).toEqual([200, {}]);
    const { images, info } = await drawing;
    expect(await sizeOf(images[0])).toEqual([128, 128, 'png']);
    const job = await product.job(JSON.parse(info).job_ids[0]);
    expect(job.status).toBe('done');
    expect(job.step).toBeLessThan(900);
  });

  test('interrupts a whole request, skips one picture of it; what is there is answered', async () => {
    for (const [deed, count] of [
      ['interrupt', 1],
      ['skip', 2],
    ] as const) {
      const drawing = post<Pictures>('txt2img', { prompt: PROMPT, steps: 1000, n_iter: 2, seed: 7 });
      const drawn = new Set<string>();
      while (drawn.size < count) {
        await until(async () => {
          const { state } = await get<Progress>('progress');
          if (state.sampling_step < 10 || drawn.has(state.job)) return null;
          drawn.add(state.job);
          return true;
        });
        await post(deed, '');
      }
      const { images, info } = await drawing;
      expect([deed, images.length, JSON.parse(info).all_seeds]).toEqual([deed, count, [7, 8].slice(0, count)]);
    }
  });

  test.each(['interrupt', 'skip'])('cannot %s what others have asked for', async (deed) => {
    const other = await product.submit({ prompt: PROMPT, numInferenceSteps: 100 });
    await until(async () => ((await product.job(other.id)).step > 0 ? true : null));
    const { status, json } = await product.call(`/sdapi/v1/${deed}`, '');
    expect([status, json]).toEqual([200, {}]);
    expect(await product.ended(other.id)).toMatchObject({ status: 'done', step: 100 });
  });
});

describe('webuiapi', () => {
  const TXT2IMG = {
    enable_hr: false,
    hr_scale: 2,
    hr_upscaler: 'Latent',
    hr_second_pass_steps: 0,
    hr_resize_x: 0,
    hr_resize_y: 0,
    hr_checkpoint_name: null,
    hr_sampler_name: null,
    hr_scheduler: null,
    hr_prompt: '',
    hr_negative_prompt: '',
    denoising_strength: 0.7,
    firstphase_width: 0,
    firstphase_height: 0,
    prompt: PROMPT,
    styles: [],
    seed: 11,
    subseed: -1,
    subseed_strength: 0.0,
    seed_resize_from_h: 0,
    seed_resize_from_w: 0,
    batch_size: 1,
    n_iter: 2,
    steps: 4,
    cfg_scale: 7.0,
    width: 128,
    height: 128,
    restore_faces: false,
    tiling: false,
    do_not_save_samples: false,
    do_not_save_grid: false,
    negative_prompt: '',
    eta: 1.0,
    s_churn: 0,
    s_tmax: 0,
    s_tmin: 0,
    s_noise: 1,
    override_settings: {},
    override_settings_restore_afterwards: true,
    sampler_name: 'Euler a',
    scheduler: 'automatic',
    sampler_index: 'Euler a',
    script_name: null,
    script_args: [],
    send_images: true,
    save_images: false,
    alwayson_scripts: {},
  };

  test('asks for scripts as it is made, and draws with every field it has', async () => {
    expect(await get('scripts')).toEqual({ txt2img: [], img2img: [] });
    const { images, info, parameters } = await post<Pictures>('txt2img', TXT2IMG);
    expect(images).toHaveLength(2);
    expect(parameters).toMatchObject({ prompt: PROMPT, seed: 11 });
    expect(JSON.parse(info)).toMatchObject({
      seed: 11,
      all_seeds: [11, 12],
      width: 128,
      height: 128,
      steps: 4,
      cfg_scale: 7,
      sampler_name: 'Euler',
      infotexts: [expect.stringContaining('Seed: 11'), expect.stringContaining('Seed: 12')],
    });
  });

  test.each(['data:image/png;base64,', ''])('draws over a picture that comes as %sbase64', async (prefix) => {
    const body = {
      ...TXT2IMG,
      n_iter: 1,
      init_images: [prefix + FOX],
      resize_mode: 0,
      denoising_strength: 0.5,
      mask_blur: 4,
      inpainting_fill: 0,
      include_init_images: false,
    };
    const { images, info, parameters } = await post<Pictures>('img2img', body);
    expect(await sizeOf(images[0])).toEqual([128, 128, 'png']);
    expect(JSON.parse(info)).toMatchObject({ denoising_strength: 0.5 });
    expect(parameters).not.toHaveProperty('init_images');
  });

  test('takes a denoising strength of nothing at all', async () => {
    const { images } = await post<Pictures>('img2img', { prompt: PROMPT, init_images: [FOX], denoising_strength: 0 });
    expect(await sizeOf(images[0])).toEqual([128, 128, 'png']);
  });

  test('reads from a picture how it was made', async () => {
    const { images } = await post<Pictures>('txt2img', {
      ...TXT2IMG,
      n_iter: 1,
      prompt: 'a fox: 你好',
      negative_prompt: 'blue',
    });
    const read = await post<{ info: string; items: Record<string, string>; parameters: Record<string, string> }>(
      'png-info',
      { image: `data:image/png;base64,${images[0]}` },
    );
    expect(read.info).toBe(
      'a fox: 你好\nNegative prompt: blue\nSteps: 4, Sampler: Euler, CFG scale: 7, Seed: 11, Size: 128x128, Model: pocket',
    );
    expect(read.parameters).toMatchObject({
      Prompt: 'a fox: 你好',
      'Negative prompt': 'blue',
      Seed: '11',
      Size: '128x128',
    });
  });

  test('frees the memory of the model and takes it back', async () => {
    expect(await get('memory')).toMatchObject({ ram: { total: expect.any(Number) }, cuda: expect.any(Object) });
    const answers = await Promise.all(['refresh-checkpoints'].map((deed) => post(deed, '')));
    expect(answers).toEqual([{}]);
    expect(await post('unload-checkpoint', '')).toEqual({});
    await until(async () => ((await product.status()).model.state === 'unloaded' ? true : null));
    expect(await post('reload-checkpoint', '')).toEqual({});
    await product.ready();
  });
});

test('what would give another picture than was asked for is refused in words that A1111 clients show', async () => {
  for (const [body, field] of [
    [{ prompt: PROMPT, enable_hr: true }, 'enable_hr'],
    [{ prompt: PROMPT, batch_size: 8, n_iter: 8 }, 'batch_size, n_iter'],
    [{ prompt: PROMPT, steps: 5000 }, 'steps'],
    [{ prompt: PROMPT, cfg_scale: 500 }, 'cfg_scale'],
  ] as const) {
    const { status, json } = await product.call('/sdapi/v1/txt2img', body);
    expect([status, json]).toMatchObject([
      400,
      { error: 'REQUEST_INVALID', detail: expect.stringContaining(`${field}: `) },
    ]);
  }
});

test('a mask says where to draw: where it is white, or where it is not, softly or not', async () => {
  const grey = (value: number, width: number) =>
    sharp({ create: { width, height: 128, channels: 3, background: { r: value, g: value, b: value } } })
      .png()
      .toBuffer();
  const right = { input: await grey(255, 64), left: 64, top: 0 };
  const mask = (
    await sharp(await grey(0, 128))
      .composite([right])
      .png()
      .toBuffer()
  ).toString('base64');
  const original = await sharp(Buffer.from(FOX, 'base64')).resize(128, 128, { fit: 'fill' }).png().toBuffer();
  const before = await sharp(original).raw().toBuffer();
  const changed = async (more: object) => {
    const body = {
      prompt: 'a blue box',
      init_images: [original.toString('base64')],
      mask,
      steps: 4,
      denoising_strength: 1,
    };
    const { images } = await post<Pictures>('img2img', { ...body, width: 128, height: 128, seed: 5, ...more });
    const after = await sharp(Buffer.from(images[0] as string, 'base64'))
      .removeAlpha()
      .raw()
      .toBuffer();
    const columns = new Set<number>();
    for (let i = 0; i < before.length; i++) if (before[i] !== after[i]) columns.add(Math.floor(i / 3) % 128);
    return [Math.min(...columns), Math.max(...columns)];
  };
  expect(await changed({})).toEqual([64, 127]);
  expect(await changed({ inpainting_mask_invert: 1 })).toEqual([0, 63]);
  const [soft = 0] = await changed({ mask_blur: 4 });
  expect(soft).toBeLessThan(64);
  expect(soft).toBeGreaterThan(32);
});

test('what clients ask before they draw is answered', async () => {
  for (const path of [
    '/queue/status',
    '/internal/ping',
    '/app_id',
    '/config',
    '/sdapi/v1/script-info',
    '/sdapi/v1/extensions',
  ])
    expect((await product.fetch(path)).status, path).toBe(200);
  expect((await product.call('/queue/status')).json).toMatchObject({ msg: 'estimation', queue_size: 0 });
  for (const name of ['refresh-checkpoints', 'refresh-loras', 'refresh-vae', 'refresh-embeddings'])
    expect((await product.call(`/sdapi/v1/${name}`, {})).status, name).toBe(200);
});

test('every answer tells the job, so that a client that has given up finds its picture', async () => {
  const { headers } = await product.call('/sdapi/v1/txt2img', { prompt: PROMPT, steps: 2, seed: 5 });
  expect(headers.get('x-seed')).toBe('5');
  expect(await product.job(headers.get('x-job-id') as string)).toMatchObject({
    status: 'done',
    source: 'sdapi',
  } satisfies Partial<Job>);
});
