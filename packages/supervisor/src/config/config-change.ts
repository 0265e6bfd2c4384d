/** What a configuration that was read again changes. Pure. */
import { CONFIG_KEYS, type Config, type ConfigKey, takesEffect } from '@qwen-supervisor/protocol/config';
import { listOfDevices } from '@qwen-supervisor/protocol/device';
import type { ReloadReport } from '@qwen-supervisor/protocol/messages';

/** The configuration in force from now on, and what is to be said and done about it. */
export function changeConfig(before: Config, read: Config): { config: Config; report: ReloadReport } {
  const changed = CONFIG_KEYS.filter((key) => read[key] !== before[key]);
  // A worker more or less is a new start's.
  const isOtherCount = listOfDevices(read.device).length !== listOfDevices(before.device).length;
  const isFixed = (key: ConfigKey) => takesEffect(key) === 'start' || (key === 'device' && isOtherCount);
  const applied = changed.filter((key) => !isFixed(key));
  const kept = Object.fromEntries(CONFIG_KEYS.filter(isFixed).map((key) => [key, before[key]]));
  const restarted = (['inference', 'api'] as const).filter((role) => applied.some((key) => takesEffect(key) === role));
  return { config: { ...read, ...kept }, report: { applied, restarted, ignored: changed.filter(isFixed) } };
}
