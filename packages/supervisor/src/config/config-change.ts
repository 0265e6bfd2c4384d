/** What a configuration that was read again changes. Pure. */
import { CONFIG_KEYS, type Config, type ConfigKey, takesEffect } from '@qwen-supervisor/protocol/config';
import type { ReloadReport } from '@qwen-supervisor/protocol/messages';
import { CHILD_NAMES } from '@qwen-supervisor/protocol/status';

/** The configuration in force from now on, and what is to be said and done about it. */
export function changeConfig(before: Config, read: Config): { config: Config; report: ReloadReport } {
  const changed = CONFIG_KEYS.filter((key) => read[key] !== before[key]);
  const isFixed = (key: ConfigKey) => takesEffect(key) === 'start';
  const applied = changed.filter((key) => !isFixed(key));
  const kept = Object.fromEntries(CONFIG_KEYS.filter(isFixed).map((key) => [key, before[key]]));
  const restarted = CHILD_NAMES.filter((name) => applied.some((key) => takesEffect(key) === name));
  return { config: { ...read, ...kept }, report: { applied, restarted, ignored: changed.filter(isFixed) } };
}
