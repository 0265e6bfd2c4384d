/**
 * Blobs in a bucket: Amazon's S3, or one of the many servers that speak its protocol. Reference: Amazon S3 API,
 * signature version 4.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { S3mini } from 's3mini';
import type { Blobs } from './blobs.js';

/** A server that is gone may leave requests open for ever. */
const ANSWER_MS = 10_000;
/** A picture, or what a picture is drawn over, on a slow line. */
const BODY_MS = 60_000;
/** Requests at a time. */
const REMOVED_AT_ONCE = 16;
/** Where nobody says which: what servers of one's own go by. */
const REGION = 'us-east-1';

/**
 * `address`: `https://HOST/BUCKET`, perhaps with `/PREFIX`. The key that it is opened with is in `env`, as everything
 * that speaks S3 has it there. @throws CodedError CONFIG_INVALID
 */
export function openBucket(address: string, env: NodeJS.ProcessEnv): BucketBlobs {
  const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey, AWS_REGION: region = REGION } = env;
  if (!accessKeyId || !secretAccessKey)
    throw new CodedError(
      'CONFIG_INVALID',
      'shared-folder: for a bucket AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY have to be in the environment',
    );
  const url = new URL(address);
  const [bucket = '', ...prefix] = decodeURIComponent(url.pathname)
    .split('/')
    .filter((part) => part !== '');
  const credentials = { accessKeyId, secretAccessKey, region };
  return new BucketBlobs(`${url.origin}/${bucket}`, prefix.map((part) => `${part}/`).join(''), credentials);
}

interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  region: string;
}

export class BucketBlobs implements Blobs {
  readonly #address: string;
  readonly #prefix: string;
  readonly #bucket: S3mini;
  /** What its last answer said that the time is; null before, and where it says nothing. */
  #nowMs: number | null = null;
  /** Of a list that is being read: the pages that were asked for. */
  readonly #pages = new AsyncLocalStorage<Set<string>>();

  /** `prefix`: of all keys; ends with a slash, or is empty. */
  constructor(address: string, prefix: string, credentials: Credentials) {
    this.#address = address;
    this.#prefix = prefix;
    this.#bucket = new S3mini({
      endpoint: address,
      ...credentials,
      fetch: async (input, init) => {
        const url = String(input);
        const isList = url.includes('list-type=');
        // Some say of each page that there is another one, which is the same: s3mini would ask for ever.
        const pages = isList ? this.#pages.getStore() : undefined;
        if (pages?.has(url)) throw new Error('it lists the same page again and again');
        pages?.add(url);
        const hasBody = init?.method === 'PUT' || (init?.method === 'GET' && !isList);
        const response = await fetch(input, { ...init, signal: AbortSignal.timeout(hasBody ? BODY_MS : ANSWER_MS) });
        this.#nowMs = Date.parse(response.headers.get('date') ?? '') || null;
        return response;
      },
    });
  }

  /** A bucket has no folders; itself it is its owner's to make. */
  make(): Promise<void> {
    return this.requireThere();
  }

  requireThere(): Promise<void> {
    return this.#reach(async () => {
      if ((await this.#bucket.listObjects('/', this.#prefix, 1)) === null) throw new Error('there is no such bucket');
    });
  }

  put(key: string, bytes: Uint8Array): Promise<void> {
    return this.#reach(async () => {
      await this.#bucket.putObject(this.#prefix + key, Buffer.from(bytes));
    });
  }

  get(key: string): Promise<Buffer | null> {
    return this.#reach(async () => {
      const bytes = await this.#bucket.getObjectArrayBuffer(this.#prefix + key);
      return bytes === null ? null : Buffer.from(bytes);
    });
  }

  has(key: string): Promise<boolean> {
    return this.#reach(async () => (await this.#bucket.objectExists(this.#prefix + key)) === true);
  }

  async list(folder: string, beginning: string): Promise<string[]> {
    return [...(await this.#entries(folder, beginning)).keys()];
  }

  async ages(folder: string, names: readonly string[]): Promise<Map<string, number>> {
    if (names.length === 0) return new Map();
    const entries = await this.#entries(folder, '');
    // Where it does not tell the time, none is old.
    const age = (writtenMs: number) => (this.#nowMs === null ? 0 : this.#nowMs - writtenMs);
    const asked = new Set(names);
    return new Map([...entries].flatMap(([name, writtenMs]) => (asked.has(name) ? [[name, age(writtenMs)]] : [])));
  }

  remove(keys: readonly string[]): Promise<void> {
    return this.#reach(async () => {
      // Each alone: the request for many at once is what servers differ in.
      for (let at = 0; at < keys.length; at += REMOVED_AT_ONCE)
        await Promise.all(
          keys.slice(at, at + REMOVED_AT_ONCE).map((key) => this.#bucket.deleteObject(this.#prefix + key)),
        );
    });
  }

  /** When each was written, by its name. */
  #entries(folder: string, beginning: string): Promise<Map<string, number>> {
    const inFolder = `${this.#prefix}${folder}/`;
    return this.#reach(async () => {
      const list = () => this.#bucket.listObjects('/', inFolder + beginning);
      const objects = await this.#pages.run(new Set(), list);
      if (objects === null) throw new Error('there is no such bucket');
      return new Map(
        objects.map(({ Key, LastModified }) => [Key.slice(inFolder.length), Number(new Date(LastModified))]),
      );
    });
  }

  async #reach<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (cause) {
      throw new CodedError('SHARED_FOLDER_UNREACHABLE', `${this.#address}: ${reasonOf(cause as Error)}`, { cause });
    }
  }
}

/** Of a request that came nowhere the innermost cause says most. */
function reasonOf({ message, cause }: Error): string {
  return cause instanceof Error && cause.message !== '' ? reasonOf(cause) : message;
}
