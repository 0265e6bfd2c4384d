/**
 * sharp, loaded when the first picture is decoded: most requests need none, and a process that starts anew should
 * serve soon. It decodes what clients send, so that only the formats that are taken exist for it; SVG, which may name
 * files and hosts, is not among them.
 */
export type Sharp = typeof import('sharp')['default'];

const LOADERS = ['VipsForeignLoadPng', 'VipsForeignLoadJpeg', 'VipsForeignLoadWebp', 'VipsForeignLoadNsgif'];
/** Pictures that are in work at once: each takes the memory of all its pixels. */
const AT_ONCE = 2;

let loading: Promise<Sharp> | undefined;
let inWork = 0;
const waiting: (() => void)[] = [];

/** Does something with pictures when it is its turn. */
export async function withSharp<T>(work: (sharp: Sharp) => Promise<T>): Promise<T> {
  if (inWork >= AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve));
  else inWork++;
  try {
    return await work(await loadSharp());
  } finally {
    const next = waiting.shift();
    if (next) next();
    else inWork--;
  }
}

function loadSharp(): Promise<Sharp> {
  loading ??= import('sharp').then(({ default: sharp }) => {
    sharp.block({ operation: ['VipsForeignLoad'] });
    sharp.unblock({ operation: LOADERS });
    // The worker needs the processors.
    sharp.concurrency(1);
    // It would keep what strangers have sent, and no picture is decoded twice.
    sharp.cache(false);
    return sharp;
  });
  return loading;
}
