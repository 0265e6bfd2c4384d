/** What a configuration that was read again changes. Pure. */
import { CONFIG_KEYS, type Config, type ConfigKey } from '@qwen-supervisor/protocol/config';
import type { ReloadReport } from '@qwen-supervisor/protocol/messages';
import { CHILD_NAMES, type ChildName } from '@qwen-supervisor/protocol/status';

/** Keys that are bound to what is open, or that all children were started with: they need a new start. */
const FIXED = ['host', 'port', 'data-dir', 'beat-limit-seconds', 'keyless'] as const satisfies ConfigKey[];

/** Keys that a child is started with. */
const STARTED_WITH: Record<ChildName, ConfigKey[]> = {
  inference: ['model', 'checkpoint-steps', 'picture-metadata'],
  api: [
    'keys-file',
    'allow-hosts',
    'allow-origins',
    'requests-per-minute',
    'max-connections',
    'max-upload-megabytes',
    'model-names',
  ],
};

/** The configuration in force from now on, and what is to be said and done about it. */
export function changeConfig(before: Config, read: Config): { config: Config; report: ReloadReport } {
  const changed = CONFIG_KEYS.filter((key) => read[key] !== before[key]);
  const isFixed = (key: ConfigKey) => FIXED.some((fixed) => fixed === key);
  const applied = changed.filter((key) => !isFixed(key));
  const kept = Object.fromEntries(FIXED.map((key) => [key, before[key]]));
  const restarted = CHILD_NAMES.filter((name) => applied.some((key) => STARTED_WITH[name].includes(key)));
  return { config: { ...read, ...kept }, report: { applied, restarted, ignored: changed.filter(isFixed) } };
}
