/**
 * sharp, loaded when the first picture is decoded: most requests need none, and a process that starts anew should
 * serve soon. It decodes what clients send, so that only the formats that are taken exist for it; SVG, which may name
 * files and hosts, is not among them.
 */
export type Sharp = typeof import('sharp')['default'];

const LOADERS = ['VipsForeignLoadPng', 'VipsForeignLoadJpeg', 'VipsForeignLoadWebp', 'VipsForeignLoadNsgif'];

let loading: Promise<Sharp> | undefined;

export function loadSharp(): Promise<Sharp> {
  loading ??= import('sharp').then(({ default: sharp }) => {
    sharp.block({ operation: ['VipsForeignLoad'] });
    sharp.unblock({ operation: LOADERS });
    // The worker needs the processors.
    sharp.concurrency(1);
    return sharp;
  });
  return loading;
}
