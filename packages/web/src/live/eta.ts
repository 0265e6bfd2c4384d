/** Numbers as people read them. Pure. */
import type { Eta } from '@qwen-supervisor/protocol/job';

/** `31 s`, `2 min`, `1 h 5 min`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 100) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
  return `${Math.round(hours / 24)} days`;
}

/** What is left of a time that was told a while ago: `31 s`, or `2 to 5 min` where it is not sure. Null: not known. */
export function timeLeft(eta: Eta | null, agoSeconds: number): string | null {
  if (!eta) return null;
  const [low, high] = [eta.low, eta.high].map((seconds) => Math.max(0, seconds - agoSeconds)) as [number, number];
  if (high < 1) return 'a moment';
  const [from, to] = [duration(low), duration(high)];
  return high < 1.3 * low || high - low < 5
    ? to
    : from.split(' ')[1] === to.split(' ')[1]
      ? `${from.split(' ')[0]} to ${to}`
      : `${from} to ${to}`;
}

/** `7.6 GB`. */
export function gigabytes(bytes: number): string {
  return bytes < 9.95e7 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** `3 s ago`, under an hour; else the time of day, or the day. */
export function ago(atMs: number, nowMs: number): string {
  const seconds = (nowMs - atMs) / 1000;
  if (seconds < 3600) return seconds < 1 ? 'now' : `${duration(seconds)} ago`;
  return seconds < 43_200
    ? clock(atMs)
    : new Date(atMs).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
}

export function clock(atMs: number): string {
  return new Date(atMs).toLocaleTimeString(undefined, { hour12: false });
}

export function exact(atMs: number): string {
  return new Date(atMs).toLocaleString(undefined, { dateStyle: 'full', timeStyle: 'medium' });
}
