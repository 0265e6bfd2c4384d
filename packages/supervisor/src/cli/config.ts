import { CONFIG_KEYS, configJsonSchema, takesEffect, WHEN } from '@qwen-supervisor/protocol/config';
import type { Command } from 'commander';
import { readKeysFile } from '../config/keys-file.js';
import { requireServable } from '../machine/http-port.js';
import { explained } from './client.js';
import { print } from './printer.js';
import { type Settings, withSettings } from './settings.js';

const KEY_WIDTH = 24;

/** What is shown may be pasted anywhere. */
function withoutPassword(address: string): string {
  return address.replace(/^(\w+:\/\/[^:@/]*):.*@/, '$1:…@').replace(/(password=)[^&]*/gi, '$1…');
}

export function addConfig(program: Command): void {
  const config = program.command('config').description('the settings, and where each comes from');
  withSettings(config.command('show'))
    .description('the settings that a start with these flags would have')
    .option('--json', 'print one JSON object')
    .action(({ json, ...settings }: Settings) => {
      const { config, origins } = explained(settings);
      const rows = CONFIG_KEYS.map((key) => ({
        key,
        value: key === 'store' ? withoutPassword(config.store) : config[key],
        from: origins[key] ?? 'the defaults',
        takesEffect: takesEffect(key),
      }));
      if (json) return print(JSON.stringify({ settings: rows }));
      for (const { key, value, from, takesEffect } of rows)
        print(`${key.padEnd(KEY_WIDTH)} ${JSON.stringify(value)}  (${from}; ${WHEN[takesEffect].toLowerCase()})`);
    });
  withSettings(config.command('check'))
    .description("whether every setting is valid; what they name is looked at by 'doctor'")
    .option('--json', 'print one JSON object')
    .action(({ json, ...settings }: Settings) => {
      const { config } = explained(settings);
      const keys = readKeysFile(config['keys-file']);
      requireServable(config.host, keys.length > 0 || config.keyless === 'anywhere');
      print(json ? JSON.stringify({ valid: true }) : 'the settings are valid');
    });
  config
    .command('schema')
    .description('a JSON schema of the TOML file, for editors')
    .action(() => print(JSON.stringify(configJsonSchema(), null, 2)));
}
