/**
 * One rule for what all dialects' clients write: what only spells a setting differently (another name, another case, a
 * number as text) is understood; what would give another picture than was asked for is obeyed or refused by name.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { describeIssues, requireObject } from '@qwen-supervisor/protocol/job-request';
import { seedOf } from '@qwen-supervisor/protocol/seed';
import { z } from 'zod';

/** Names of the same setting among clients; case, `_` and `-` make no difference. */
const SAME = [
  ['numinferencesteps', 'steps', 'step', 'inferencesteps', 'samplingsteps'],
  ['truecfgscale', 'cfgscale', 'cfg', 'guidancescale', 'guidance'],
  ['negativeprompt', 'negative'],
  ['strength', 'denoisingstrength', 'denoise'],
  ['n', 'numimages', 'numimagesperprompt', 'batchsize'],
  ['initimage', 'image', 'inputimage'],
  ['initimages', 'images'],
  ['mask', 'maskimage'],
];

/** Settings of other servers that change the picture, and when they ask for something that is not there. */
const NOT_HERE: Record<string, { asks(value: unknown): boolean; instead: string }> = {
  lora: { asks: isSomething, instead: 'LoRAs are not there' },
  loras: { asks: isSomething, instead: 'LoRAs are not there' },
  controlnet: { asks: isSomething, instead: 'ControlNet is not there' },
  controlnets: { asks: isSomething, instead: 'ControlNet is not there' },
  controlimage: { asks: isSomething, instead: 'ControlNet is not there' },
  scriptname: { asks: isSomething, instead: 'scripts are not there' },
  alwaysonscripts: { asks: isSomething, instead: 'scripts are not there' },
  enablehr: { asks: isTrue, instead: 'there is no second pass; ask for the size that you want' },
  restorefaces: { asks: isTrue, instead: 'face restoration is not there' },
  tiling: { asks: isTrue, instead: 'pictures that tile are not there' },
  styles: {
    asks: (value) => isSomething(value) && JSON.stringify(value) !== '["None"]',
    instead: 'styles are not there; write them into the prompt',
  },
  refinercheckpoint: { asks: isSomething, instead: 'there is no refiner' },
  subseedstrength: { asks: (value) => isAbove(value, 0), instead: 'a second seed is not mixed in' },
  aspectratio: { asks: isSomething, instead: 'ask for a size' },
  n: { asks: (value) => isAbove(value, 1), instead: 'a request is one picture here' },
  initimage: { asks: isSomething, instead: 'this route draws from a prompt alone' },
  initimages: { asks: isSomething, instead: 'this route draws from a prompt alone' },
  mask: { asks: isSomething, instead: 'this route draws from a prompt alone' },
};

/** Texts, lists and objects that are empty, and what stands for nothing, ask for nothing. */
function isSomething(value: unknown): boolean {
  if (typeof value === 'string') return !['', 'none'].includes(value.trim().toLowerCase());
  return typeof value === 'object' && value !== null ? Object.keys(value).length > 0 : Boolean(value);
}

function isAbove(value: unknown, bound: number): boolean {
  return (typeof value === 'number' || typeof value === 'string') && Number(value) > bound;
}

function isTrue(value: unknown): boolean {
  return value === true || value === 1 || (typeof value === 'string' && /^(true|1|yes|on)$/i.test(value.trim()));
}

/** Reads the bodies of one route. */
export interface Wording {
  /** What was sent, in the route's own words. @throws CodedError REQUEST_INVALID */
  read(body: object): object;
}

/** @param schema of the route's body; one that is strict refuses every other field itself */
export function wordingOf(schema: z.ZodType): Wording | null {
  if (!(schema instanceof z.ZodObject)) return null;
  const shape = schema.shape as Record<string, z.ZodType>;
  const lists = new Map(
    Object.entries(shape).map(([key, field]) => [
      key,
      field instanceof z.ZodArray ? wordingOf(field.element as z.ZodType) : null,
    ]),
  );
  const json = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' });
  const kinds = new Map(Object.keys(shape).map((key) => [key, kindsOf(json.properties?.[key])]));
  const byName = new Map<string, string>();
  for (const key of Object.keys(shape)) {
    for (const name of SAME.find((names) => names.includes(plain(key))) ?? []) {
      if (!byName.has(name)) byName.set(name, key);
    }
  }
  for (const key of Object.keys(shape)) byName.set(plain(key), key);

  return {
    read(body) {
      const read: Record<string, unknown> = Object.create(null);
      const from: Record<string, string> = Object.create(null);
      const take = (name: string, key: string, value: unknown) => {
        if (value === undefined) return;
        const other = from[key];
        if (other !== undefined && JSON.stringify(read[key]) !== JSON.stringify(value))
          throw new CodedError('REQUEST_INVALID', `${other}, ${name}: say different things`);
        read[key] = value;
        from[key] = name;
      };
      for (const [name, value] of Object.entries(body)) {
        const key = byName.get(plain(name)) ?? name;
        const missing = kinds.has(key) ? undefined : notHere(plain(name));
        if (missing?.asks(value)) throw new CodedError('REQUEST_INVALID', `${name}: ${missing.instead}`);
        const isSize = !kinds.has(key) && plain(name) === 'size' && kinds.has('width');
        const sides = isSize ? sidesOf(value) : null;
        if (isSize && !sides && isSomething(value) && value !== 'auto')
          throw new CodedError('REQUEST_INVALID', `${name}: must be WIDTHxHEIGHT`);
        if (isSize && !sides) continue;
        const list = lists.get(key);
        if (sides) {
          take(name, 'width', sides[0]);
          take(name, 'height', sides[1]);
        } else if (list && Array.isArray(value)) {
          take(
            name,
            key,
            value.map((item) => (typeof item === 'object' && item !== null ? list.read(item) : item)),
          );
        } else take(name, key, key === 'seed' ? seedFrom(value) : respell(value, kinds.get(key) ?? null));
      }
      return read;
    },
  };
}

/** `1024x768`, however it is written. */
export function sidesOf(size: unknown): [width: number, height: number] | null {
  if (typeof size !== 'string' || size.length > 40) return null;
  const [, width, height] = /^\s*(\d{1,5})\s*[x×*]\s*(\d{1,5})\s*$/i.exec(size) ?? [];
  return width === undefined || height === undefined ? null : [Number(width), Number(height)];
}

/** A negative seed asks for one that is drawn. */
function seedFrom(value: unknown): unknown {
  const known =
    typeof value === 'string' && /^\s{0,9}[+-]?\d{1,40}\s{0,9}$/.test(value) ? seedOf(value) : respell(value, SEED);
  return typeof known === 'number' && Number.isInteger(known) && known < 0 ? undefined : known;
}

/** A body, or the fields of a form, as a route's schema has them. @throws CodedError BODY_INVALID, REQUEST_INVALID */
export function readBody<S extends z.ZodType>(schema: S, wording: Wording | null, body: unknown): z.output<S> {
  const given = requireObject(body);
  const parsed = schema.safeParse(wording ? wording.read(given) : given);
  if (!parsed.success) throw new CodedError('REQUEST_INVALID', describeIssues(parsed.error));
  return parsed.data;
}

function plain(name: string): string {
  return name.toLowerCase().replace(/[_-]/g, '');
}

/** What is known of a setting that is not there, by any of its names. */
function notHere(name: string): (typeof NOT_HERE)[string] | undefined {
  const known = (SAME.find((names) => names.includes(name)) ?? [name]).find((one) => Object.hasOwn(NOT_HERE, one));
  return known === undefined ? undefined : NOT_HERE[known];
}

/** The name of a picture in a form: `image` or `mask` by any of their names, else as it is. */
export function pictureName(name: string): string {
  const bare = plain(name.replace(/\[\d{0,9}\]$/, ''));
  if (bare === 'images' || bare === 'initimages') return 'image';
  return ['image', 'mask'].find((one) => SAME.some((names) => names.includes(one) && names.includes(bare))) ?? name;
}

const SEED = new Set<Kind>(['number']);

/** As long as a number of any use is. */
const NUMBER = /^[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})(e[+-]?\d{1,3})?$/i;

type Kind = 'number' | 'boolean' | 'string' | 'array' | 'object';

/** What a field may be, null aside; empty for anything. */
function kindsOf(json: unknown): Set<Kind> {
  type Described = { type?: string | string[]; anyOf?: unknown[]; enum?: unknown[] };
  const { type, anyOf, enum: values } = (json ?? {}) as Described;
  if (Array.isArray(type)) return new Set(type.flatMap((one) => [...kindsOf({ type: one })]));
  if (anyOf) return new Set(anyOf.flatMap((one) => [...kindsOf(one)]));
  if (values?.some((value) => typeof value === 'string')) return new Set(['string']);
  if (type === undefined || type === 'null') return new Set();
  return new Set([type === 'integer' ? 'number' : (type as Kind)]);
}

/** A value as the field has it; undefined where nothing is said. */
function respell(value: unknown, kinds: Set<Kind> | null): unknown {
  if (value === null) return undefined;
  if (kinds === null || kinds.size === 0 || kinds.has('string')) return value;
  if (typeof value === 'string') {
    const text = value.trim();
    if (text === '' && !kinds.has('object')) return undefined;
    if (kinds.has('number') && NUMBER.test(text)) return Number(text);
    if (kinds.has('boolean') && /^(true|false|1|0|yes|no|on|off)$/i.test(text)) return isTrue(text);
  }
  if (typeof value === 'number' && kinds.has('boolean') && !kinds.has('number') && (value === 0 || value === 1))
    return value === 1;
  if (kinds.has('array') && !Array.isArray(value)) return [value];
  return value;
}
