/** Where a bucket is, as the setting `shared-folder` names it: `https://HOST/BUCKET`, perhaps with `/PREFIX`. */

/** Whether it means a bucket, and no folder. */
export function isBucketAddress(text: string): boolean {
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(text);
}

/** What is wrong with it; null for a folder, or an address that can be one. */
export function bucketAddressFault(text: string): string | null {
  if (!isBucketAddress(text)) return null;
  if (!URL.canParse(text)) return 'is no address';
  const { protocol, pathname, username, password, search, hash } = new URL(text);
  if (!['http:', 'https:'].includes(protocol)) return 'has to be a folder, or begin with https:// or http://';
  if (username || password)
    return 'must not have a key in it: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are for that';
  if (search || hash) return 'ends with its bucket, or with a prefix of names in it';
  return pathname.replaceAll('/', '') === '' ? 'has no bucket: https://HOST/BUCKET' : null;
}
