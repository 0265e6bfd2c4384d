/** Settings as flags: those of `start`, for every command that needs all of them. */
import { CONFIG_KEYS, describeKey } from '@qwen-supervisor/protocol/config';
import type { Command } from 'commander';

/** Flags by their names as commander writes them, which the configuration accepts; `config` is the file. */
export type Settings = Record<string, string>;

export function withSettings(command: Command): Command {
  for (const key of CONFIG_KEYS) {
    const { doc, default: value } = describeKey(key);
    command.option(`--${key} <value>`, value === undefined || value === '' ? doc : `${doc} (default: ${value})`);
  }
  return command.option('--config <file>', 'TOML file with the same keys');
}
