import { CONFIG_KEYS, type Config, parseConfig } from '@qwen-supervisor/protocol/config';
import { changeConfig } from '@qwen-supervisor/supervisor/config/config-change';
import { accessOf } from '@qwen-supervisor/supervisor/config/config-parts';
import { expect, test } from 'vitest';

const BEFORE = parseConfig([{ name: 'test', values: { 'data-dir': '/data', model: '/model' } }]);
/** Another value of every key. */
const OTHER = {
  ...Object.fromEntries(
    CONFIG_KEYS.map((key) => [key, typeof BEFORE[key] === 'number' ? (BEFORE[key] as number) + 1 : 'other']),
  ),
  'trusted-proxies': '10.0.0.0/8',
  'path-prefix': '/qwen',
  keyless: 'anywhere',
  'model-names': 'strict',
  'picture-metadata': 'omit',
  'on-stop': 'finish',
  'systemd-ready': 'model',
  'log-level': 'debug',
} as Config;

test.each(CONFIG_KEYS)('a changed %s is in force afterwards, or said not to be', (key) => {
  const { config, report } = changeConfig(BEFORE, { ...BEFORE, [key]: OTHER[key] });
  expect([...report.applied, ...report.ignored]).toEqual([key]);
  expect(config[key]).toBe(report.applied.includes(key) ? OTHER[key] : BEFORE[key]);
  // The API knows who may call from its start alone.
  const touchesApi = JSON.stringify(accessOf(config)) !== JSON.stringify(accessOf(BEFORE));
  if (touchesApi) expect(report.restarted).toEqual(['api']);
});

test('nothing changed is nothing to say', () => {
  expect(changeConfig(BEFORE, BEFORE).report).toEqual({ applied: [], restarted: [], ignored: [] });
});
