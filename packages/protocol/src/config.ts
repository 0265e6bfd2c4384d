/**
 * Configuration: one table. A key is a flag of `start` (`--max-steps`), an environment variable
 * (`QWEN_SUPERVISOR_MAX_STEPS`) and a key of the TOML file (`max-steps`); flags win over the environment, it over the
 * file.
 */
import { z } from 'zod';
import { bucketAddressFault } from './bucket-address.js';
import { DEVICES_PATTERN, listOfDevices, repeatedCard } from './device.js';
import { CodedError } from './errors.js';
import { STEPS_MAX } from './job-request.js';
import { type ChildRole, WORKERS_MAX } from './status.js';

/**
 * When a changed setting is obeyed: at once, when that child is started anew (a reload does it), or at the next start
 * because it is bound to what is open, or all children were started with it.
 */
export type TakesEffect = 'at once' | ChildRole | 'start';

const seconds = z.number().positive().max(86_400);

export const configSchema = z.strictObject({
  'data-dir': z
    .string()
    .min(1)
    .describe('Folder for jobs, pictures, logs and prepared weights. Default: $XDG_DATA_HOME/qwen-supervisor')
    .meta({ takesEffect: 'start' }),
  store: z
    .string()
    .regex(/^(sqlite|postgres(ql)?:\/\/\S+)$/, {
      error: "must be 'sqlite', or the address of a PostgreSQL database: postgres://user@machine/database",
    })
    .default('sqlite')
    .describe(
      "Where jobs are kept: 'sqlite' is the data folder; 'postgres://user@machine/database' is shared by several machines, which draw one queue. The password belongs into PGPASSWORD",
    )
    .meta({ takesEffect: 'start' }),
  'shared-folder': z
    .string()
    .refine((text) => bucketAddressFault(text) === null, {
      error: (issue) => bucketAddressFault(String(issue.input)) ?? '',
    })
    .default('')
    .describe(
      'Where each machine of a shared store finds the pictures of the others: a folder that all have mounted, or the address of a bucket (S3), https://HOST/BUCKET, with its key in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY',
    )
    .meta({ takesEffect: 'start' }),
  host: z
    .string()
    .min(1)
    .default('localhost')
    .describe("Address to listen on; 'localhost' is 127.0.0.1 and ::1. One beyond loopback needs keys-file")
    .meta({ takesEffect: 'start' }),
  port: z
    .int()
    .min(0)
    .max(65_535)
    .default(8000)
    .describe('Port to listen on; 0 picks a free one')
    .meta({ takesEffect: 'start' }),
  'keys-file': z
    .string()
    .default('')
    .describe("File with the API keys, a line each: 'use KEY' or 'admin KEY'. Without it no key is asked for")
    .meta({ takesEffect: 'api' }),
  keyless: z
    .enum(['loopback', 'anywhere'])
    .default('loopback')
    .describe("Where the API may be served without keys; 'anywhere' trusts everybody who can reach it")
    .meta({ takesEffect: 'start' }),
  'allow-hosts': z
    .string()
    .default('')
    .describe('Names by which clients may call this server besides its addresses, separated by commas')
    .meta({ takesEffect: 'api' }),
  'allow-origins': z
    .string()
    .default('')
    .describe('Origins of pages elsewhere that may call it (https://example.org, app://*), separated by commas')
    .meta({ takesEffect: 'api' }),
  'trusted-proxies': z
    .string()
    .default('')
    .describe('Addresses and networks (10.0.0.0/8) of proxies whose X-Forwarded headers are believed, by commas')
    .meta({ takesEffect: 'api' }),
  'path-prefix': z
    .string()
    .regex(/^((\/[\w.~-]+)+|)$/, { error: 'must be empty, or a path like /qwen' })
    .default('')
    .describe('Path below which a proxy serves this server, as /qwen')
    .meta({ takesEffect: 'api' }),
  'requests-per-minute': z
    .int()
    .min(0)
    .max(1e6)
    .default(6000)
    .describe('Most requests of one API key; 0 for no limit')
    .meta({ takesEffect: 'api' }),
  'max-connections': z
    .int()
    .min(1)
    .max(1e5)
    .default(2048)
    .describe('Most open connections of clients')
    .meta({ takesEffect: 'api' }),
  'max-upload-megabytes': z
    .int()
    .min(1)
    .max(1024)
    .default(32)
    .describe('Largest body with a picture in it')
    .meta({ takesEffect: 'api' }),
  'model-names': z
    .enum(['any', 'strict'])
    .default('any')
    .describe("Model names that clients of compatible APIs may send: 'any' is answered by the model that is loaded")
    .meta({ takesEffect: 'api' }),
  model: z
    .string()
    .min(1)
    .describe(
      "Name of a model that was added, or a checkpoint folder in the diffusers layout. Default: what 'model use' has chosen, else the pocket model",
    )
    .meta({ takesEffect: 'inference' }),
  'max-steps': z
    .int()
    .min(1)
    .max(STEPS_MAX)
    .default(STEPS_MAX)
    .describe('Most denoising steps a request may ask for')
    .meta({ takesEffect: 'at once' }),
  'max-pixels': z
    .int()
    .min(256)
    .max(16_777_216)
    .default(4_194_304)
    .describe('Most pixels (width x height) of a request')
    .meta({ takesEffect: 'at once' }),
  'max-queued': z
    .int()
    .min(1)
    .max(1_000_000)
    .default(1000)
    .describe('Most jobs that may wait; further ones get 429')
    .meta({ takesEffect: 'at once' }),
  'max-queued-per-key': z
    .int()
    .min(1)
    .max(1_000_000)
    .default(500)
    .describe('Most jobs of one API key that may wait: the rest of the queue is for the others')
    .meta({ takesEffect: 'at once' }),
  'keep-days': z
    .number()
    .min(0)
    .max(36_500)
    .default(0)
    .describe('Finished jobs and their pictures are removed after this many days; 0 keeps them')
    .meta({ takesEffect: 'at once' }),
  'keep-trash-days': z
    .number()
    .min(0)
    .max(36_500)
    .default(30)
    .describe('Pictures in the trash are removed, with their jobs, after this many days; 0 keeps them')
    .meta({ takesEffect: 'at once' }),
  'keep-gigabytes': z
    .number()
    .min(0)
    .max(1e6)
    .default(0)
    .describe('The oldest pictures are removed, with their jobs, when all together are larger; 0 keeps them')
    .meta({ takesEffect: 'at once' }),
  threads: z
    .int()
    .min(0)
    .max(1024)
    .default(0)
    .describe('Processor threads that compute pictures; 0 for as many as there are cores that may be used')
    .meta({ takesEffect: 'inference' }),
  device: z
    .string()
    .regex(DEVICES_PATTERN, {
      error: "must be auto, cpu, cuda or webgpu; a card of several as 'cuda:1', several cards as 'cuda:0,cuda:1'",
    })
    .refine((text) => listOfDevices(text).length <= WORKERS_MAX, { error: `must be ${WORKERS_MAX} devices at most` })
    .refine((text) => repeatedCard(text) === null, {
      error: (issue) => `${repeatedCard(String(issue.input))} stands there twice: a card takes one worker`,
    })
    .default('auto')
    .describe(
      "What computes pictures: 'cpu', 'cuda' or 'webgpu' (Vulkan), of several cards as 'cuda:1'; 'auto' for the best that works; 'cuda:0,cuda:1' for two pictures at a time (docs/gpu.md)",
    )
    .meta({ takesEffect: 'inference' }),
  'device-fallback': z
    .enum(['cpu', 'none'])
    .default('cpu')
    .describe(
      "What goes on when the device does not work: 'cpu', or 'none' to fail and say why. Of several devices the others go on",
    )
    .meta({ takesEffect: 'inference' }),
  'device-precision': z
    .enum(['auto', 'float32'])
    .default('auto')
    .describe(
      "What a card computes the transformer in: 'auto' for 16 bits where a test of the card comes out right, 'float32' otherwise and where pictures come out wrong",
    )
    .meta({ takesEffect: 'inference' }),
  'resume-elsewhere': z
    .enum(['go-on', 'start-over', 'wait'])
    .default('go-on')
    .describe(
      "A picture begun on one kind of card, and another could go on with it: 'go-on' (last bits may round otherwise), 'start-over', or 'wait' for an equal card that is not given up",
    )
    .meta({ takesEffect: 'inference' }),
  'memory-gigabytes': z
    .number()
    .min(0)
    .max(1e5)
    .default(0)
    .describe('Memory that the model is fitted into; 0 for what is free when it starts, within the limits of its group')
    .meta({ takesEffect: 'inference' }),
  'checkpoint-steps': z
    .int()
    .min(1)
    .max(STEPS_MAX)
    .default(1)
    .describe('Denoising steps from one checkpoint of a running job to the next')
    .meta({ takesEffect: 'inference' }),
  'picture-metadata': z
    .enum(['embed', 'omit'])
    .default('embed')
    .describe("Whether the PNG tells how it was made: request, seed and model, as A1111's text and as JSON")
    .meta({ takesEffect: 'inference' }),
  'stop-seconds': seconds
    .default(10)
    .describe('Time that a child gets to stop by itself before it is killed')
    .meta({ takesEffect: 'at once' }),
  'on-stop': z
    .enum(['checkpoint', 'finish'])
    .default('checkpoint')
    .describe("What a stop does with the running job: 'checkpoint' keeps its last step, 'finish' lets it end first")
    .meta({ takesEffect: 'at once' }),
  'load-stall-seconds': seconds
    .default(120)
    .describe('A model load without progress for this long is given up')
    .meta({ takesEffect: 'at once' }),
  'load-limit-seconds': seconds
    .default(600)
    .describe('A model load that takes longer, and longer than three times what its rate predicts, is given up')
    .meta({ takesEffect: 'at once' }),
  'beat-limit-seconds': seconds
    .default(15)
    .describe('A worker that gives no sign of life for this long is killed')
    .meta({ takesEffect: 'start' }),
  'step-limit-seconds': seconds
    .default(120)
    .describe(
      'A worker that completes no step for this long, and for ten times the longest so far if it computes, is killed',
    )
    .meta({ takesEffect: 'at once' }),
  'memory-soft-gigabytes': z
    .number()
    .min(0)
    .max(1e5)
    .default(0)
    .describe('A worker with more memory of its own is restarted after its job; 0 for no limit')
    .meta({ takesEffect: 'at once' }),
  'memory-hard-gigabytes': z
    .number()
    .min(0)
    .max(1e5)
    .default(0)
    .describe('A worker with more memory of its own is killed; 0 for a limit from the plan of the model')
    .meta({ takesEffect: 'at once' }),
  'api-memory-gigabytes': z
    .number()
    .min(0)
    .max(1e5)
    .default(2)
    .describe('An API process with more resident memory is killed, and started anew at once; 0 for no limit')
    .meta({ takesEffect: 'at once' }),
  'restart-max': z
    .int()
    .min(1)
    .max(1000)
    .default(8)
    .describe('Unplanned exits within the window before a child is given up')
    .meta({ takesEffect: 'at once' }),
  'restart-window-seconds': seconds.default(120).describe('The window of restart-max').meta({ takesEffect: 'at once' }),
  'systemd-ready': z
    .enum(['api', 'model'])
    .default('api')
    .describe("When systemd is told that the service is up: 'api', requests are taken; 'model', pictures can be drawn")
    .meta({ takesEffect: 'at once' }),
  'log-level': z
    .enum(['debug', 'info', 'warn', 'error'])
    .default('info')
    .describe('Least level that is logged')
    .meta({ takesEffect: 'at once' }),
});

export type Config = z.infer<typeof configSchema>;
export type ConfigKey = keyof Config;

export const CONFIG_KEYS = Object.keys(configSchema.shape) as ConfigKey[];

/** For editors, of the TOML file. Reference: JSON Schema 2020-12. */
export function configJsonSchema(): object {
  const { $schema, ...schema } = z.toJSONSchema(configSchema, { io: 'input' });
  const properties = Object.fromEntries(
    Object.entries(schema.properties ?? {}).map(([key, property]) => {
      const { takesEffect: when, ...rest } = property as Record<string, unknown>;
      return [key, { ...rest, description: `${rest.description}. ${WHEN[when as TakesEffect]}` }];
    }),
  );
  // What the file leaves out comes from elsewhere.
  return { $schema, title: 'qwen-supervisor', ...schema, required: [], properties };
}

/** When a changed value is obeyed, in words. */
export const WHEN: Record<TakesEffect, string> = {
  'at once': 'Takes effect with a reload',
  inference: 'Takes effect with a reload, which restarts the worker',
  api: 'Takes effect with a reload, which restarts the API',
  start: 'Takes effect with the next start',
};

/** What is known about one key, for flags, docs and the example file. */
export function describeKey(key: ConfigKey): { doc: string; default: string | number | undefined; numeric: boolean } {
  const schema: z.ZodType = configSchema.shape[key];
  const json = z.toJSONSchema(schema, { io: 'input' }) as { default?: string | number; type?: string };
  return {
    doc: schema.description ?? '',
    default: json.default,
    numeric: json.type === 'integer' || json.type === 'number',
  };
}

export function takesEffect(key: ConfigKey): TakesEffect {
  return configSchema.shape[key].meta()?.takesEffect as TakesEffect;
}

export function environmentName(key: ConfigKey): string {
  return `QWEN_SUPERVISOR_${key.toUpperCase().replaceAll('-', '_')}`;
}

/** `max_steps` and `maxSteps` are accepted for `max-steps`: TOML writers use all three. */
function canonicalKey(key: string): string {
  return key.replaceAll('_', '-').replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** Where a value came from, for the message about it. */
export type ConfigSource = { name: string; values: Record<string, unknown> };

/** A configuration, and for each key that is not as it comes the name of the source that had the last word. */
export interface ExplainedConfig {
  config: Config;
  origins: Partial<Record<ConfigKey, string>>;
}

/** @throws CodedError CONFIG_INVALID, naming the source and the key */
export function parseConfig(sources: ConfigSource[]): Config {
  return explainConfig(sources).config;
}

/**
 * Merges the sources (the later wins) and checks the result. Text from flags and environment becomes a number where the
 * key is one.
 * @throws CodedError CONFIG_INVALID, naming the source and the key
 */
export function explainConfig(sources: ConfigSource[]): ExplainedConfig {
  const merged: Record<string, unknown> = {};
  const origins: Partial<Record<string, string>> = {};
  for (const source of sources) {
    for (const [name, value] of Object.entries(source.values)) {
      const key = canonicalKey(name);
      if (!Object.hasOwn(configSchema.shape, key)) {
        throw new CodedError('CONFIG_INVALID', `unknown key '${name}' in ${source.name}`);
      }
      merged[key] = describeKey(key as ConfigKey).numeric ? toNumber(value) : value;
      origins[key] = source.name;
    }
  }
  const parsed = configSchema.safeParse(merged);
  if (parsed.success) return { config: parsed.data, origins };
  const problems = parsed.error.issues.map((issue) => {
    const key = String(issue.path[0] ?? '');
    return `${key} (from ${origins[key] ?? 'the defaults'}): ${issue.message}`;
  });
  throw new CodedError('CONFIG_INVALID', problems.join('; '));
}

function toNumber(value: unknown): unknown {
  return typeof value === 'string' && /^-?\d+(\.\d+)?$/.test(value.trim()) ? Number(value) : value;
}
