/** Reads the configuration of `start`: defaults, then the TOML file, then the environment, then flags. */
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readRegular } from '@qwen-supervisor/files/read-regular';
import { modelInUse } from '@qwen-supervisor/model/registry/in-use';
import {
  CONFIG_KEYS,
  type Config,
  type ConfigSource,
  type ExplainedConfig,
  environmentName,
  explainConfig,
} from '@qwen-supervisor/protocol/config';
import { MODEL_FILE, modelFolder } from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { parse } from 'smol-toml';
import { defaultDataDir } from '../machine/data-folder.js';
import { accessOf } from './config-parts.js';

/** The model that comes with the program. */
const POCKET_MODEL = dirname(
  fileURLToPath(import.meta.resolve('@qwen-supervisor/pocket-model/checkpoint/model_index.json')),
);

/** Of the TOML file: hundreds of times what all keys take. */
const BYTES_MAX = 1 << 20;

/** Where values come from that are neither the defaults nor of the file. */
export const ENVIRONMENT = 'the environment';
export const COMMAND_LINE = 'the command line';

/** `flags` by key; `configFile` from `--config` or QWEN_SUPERVISOR_CONFIG. @throws CodedError CONFIG_* */
export function loadConfig(
  flags: Record<string, string>,
  configFile: string | undefined,
  env: NodeJS.ProcessEnv,
): Config {
  return loadExplained(flags, configFile, env).config;
}

/** With where each value came from. @throws CodedError CONFIG_* */
export function loadExplained(
  flags: Record<string, string>,
  configFile: string | undefined,
  env: NodeJS.ProcessEnv,
): ExplainedConfig {
  const fromEnvironment = CONFIG_KEYS.flatMap((key) => {
    const value = env[environmentName(key)];
    return value === undefined || value === '' || isServiceVariable(value) ? [] : [[key, value]];
  });
  const given: ConfigSource[] = [
    ...(configFile ? [{ name: configFile, values: readToml(configFile) }] : []),
    { name: ENVIRONMENT, values: Object.fromEntries(fromEnvironment) },
    { name: COMMAND_LINE, values: flags },
  ];
  const withDefault = (model: string, name = 'the defaults') =>
    explainConfig([
      { name: 'the defaults', values: { 'data-dir': defaultDataDir(env) } },
      { name, values: { model } },
      ...given,
    ]);
  const inUse = modelInUse(resolve(withDefault(POCKET_MODEL).config['data-dir']));
  const { config, origins } = inUse === null ? withDefault(POCKET_MODEL) : withDefault(inUse, "'model use'");
  const { 'data-dir': dataDir, model, 'keys-file': keysFile } = config;
  // A model that was added goes by its name.
  const isName = existsSync(join(modelFolder(resolve(dataDir), model), MODEL_FILE));
  const absolute = {
    'data-dir': resolve(dataDir),
    model: isName ? model : resolve(model),
    'keys-file': keysFile && resolve(keysFile),
  };
  // Lists have more to them than a schema sees.
  accessOf(config);
  return { config: { ...config, ...absolute }, origins };
}

/**
 * Kubernetes sets QWEN_SUPERVISOR_PORT=tcp://10.0.0.1:8000 where a Service is called as this program is; no setting of
 * ours looks so.
 */
export function isServiceVariable(value: string): boolean {
  return /^(tcp|udp|sctp):\/\//.test(value);
}

function readToml(file: string): Record<string, unknown> {
  try {
    return parse(readRegular(file, BYTES_MAX).bytes.toString('utf8'));
  } catch (cause) {
    throw new CodedError('CONFIG_UNREADABLE', `${file}: ${(cause as Error).message.split('\n')[0]}`, { cause });
  }
}
