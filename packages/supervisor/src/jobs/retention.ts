/** Which pictures go because all together are too large: the same for every store. */
import type { Expired } from './job-store.js';

/** Pictures that are looked at together. */
export const LOOKED_AT_ONCE = 100;
/** Newest pictures that are kept whatever their size. */
const NEVER_TOO_LARGE = 10;

/** A finished job, as a store tells of it. */
export interface Found extends Expired {
  bytes: number;
  /** Whether it has a picture, without a star: the others are no reason for others to go. SQLite has 0 and 1. */
  counts: boolean | 0 | 1;
}

export interface Kept {
  /** Of all pictures together. */
  bytes: number;
  /** Those without a star. */
  pictures: number;
}

/**
 * What goes: `gone`, which is too old, and the oldest pictures without a star until the rest has `keepBytes` at most.
 * `oldest` gives `LOOKED_AT_ONCE` of them from an offset on: what is kept is not read, however much it is.
 */
export async function expiredOf(
  gone: readonly Found[],
  { bytes, pictures }: Kept,
  keepBytes: number,
  oldest: (offset: number) => Found[] | Promise<Found[]>,
): Promise<Expired[]> {
  const expired = new Map<string, Expired>();
  const add = ({ id, file, bytes: own, counts }: Found) => {
    // It may be gone for two reasons.
    if (expired.has(id)) return;
    expired.set(id, { id, file });
    bytes -= own;
    if (counts) pictures--;
  };
  const isEnough = () => bytes <= keepBytes || pictures <= NEVER_TOO_LARGE;
  // These make room already.
  gone.forEach(add);
  for (let offset = 0; !isEnough(); offset += LOOKED_AT_ONCE) {
    const rows = await oldest(offset);
    for (const row of rows) if (!isEnough()) add(row);
    if (rows.length < LOOKED_AT_ONCE) break;
  }
  return [...expired.values()];
}
