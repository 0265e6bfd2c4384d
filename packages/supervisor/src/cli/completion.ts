/** Scripts by which shells complete our commands and flags: made from the commands themselves, with nothing to run. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { print } from './printer.js';

const SHELLS = { bash: bashScript, zsh: zshScript, fish: fishScript };

export function addCompletion(program: Command): void {
  program
    .command('completion')
    .description('print a script by which a shell completes commands and flags')
    .argument('<shell>', Object.keys(SHELLS).join(', '))
    .addHelpText(
      'after',
      `
Examples:
  bash  source <(qwen-supervisor completion bash)        # in ~/.bashrc
  zsh   source <(qwen-supervisor completion zsh)         # in ~/.zshrc
  fish  qwen-supervisor completion fish > ~/.config/fish/completions/qwen-supervisor.fish`,
    )
    .action((shell: string) => {
      if (!Object.hasOwn(SHELLS, shell))
        throw new CodedError('USAGE_INVALID', `completion: '${shell}' is none of ${Object.keys(SHELLS).join(', ')}`);
      print(SHELLS[shell as keyof typeof SHELLS](program).trimEnd());
    });
}

/** A command by its words, and what may follow it. */
interface Place {
  path: string[];
  commands: readonly Command[];
  flags: { name: string; description: string; takesValue: boolean }[];
}

function places(command: Command, path: string[] = []): Place[] {
  const flags = command.options.map(({ long, short, description, required }) => ({
    name: long ?? (short as string),
    description,
    takesValue: required,
  }));
  const help = { name: '--help', description: 'display help', takesValue: false };
  const own: Place = { path, commands: command.commands, flags: [...flags, help] };
  return [own, ...command.commands.flatMap((sub) => places(sub, [...path, sub.name()]))];
}

/** Reference: Bash manual, "Programmable Completion". Where nothing of ours fits, files are offered. */
function bashScript(program: Command): string {
  const all = places(program);
  const steps = all
    .filter(({ path }) => path.length > 0)
    .map(({ path }) => `      "${path.join(' ')}") path="$next" ;;`);
  const words = all.map(({ path, commands, flags }) => {
    const offered = [...commands.map((sub) => sub.name()), ...flags.map(({ name }) => name)];
    return `    "${path.join(' ')}") words="${offered.join(' ')}" ;;`;
  });
  return `_qwen_supervisor() {
  local current="\${COMP_WORDS[COMP_CWORD]}" path="" words="" next word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    next="\${path:+$path }$word"
    case "$next" in
${steps.join('\n')}
    esac
  done
  case "$path" in
${words.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ \${#COMPREPLY[@]} -eq 0 ]; then mapfile -t COMPREPLY < <(compgen -f -- "$current"); fi
}
complete -o filenames -F _qwen_supervisor qwen-supervisor
`;
}

function zshScript(program: Command): string {
  return `autoload -U +X bashcompinit && bashcompinit\n${bashScript(program)}`;
}

/** Reference: fish-shell manual, `complete`. */
function fishScript(program: Command): string {
  const quoted = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
  const lines = places(program).flatMap(({ path, commands, flags }) => {
    const names = commands.map((sub) => sub.name());
    const seen = path.map((word) => `__fish_seen_subcommand_from ${word}`);
    const before = names.length > 0 ? [`not __fish_seen_subcommand_from ${names.join(' ')}`] : [];
    const when = quoted([...seen, ...before].join('; and ') || 'true');
    return [
      ...commands.map(
        (sub) => `complete -c qwen-supervisor -n ${when} -f -a ${sub.name()} -d ${quoted(sub.description())}`,
      ),
      ...flags.map(
        ({ name, description, takesValue }) =>
          `complete -c qwen-supervisor -n ${when} -l ${name.replace(/^-+/, '')}${takesValue ? ' -r' : ''} -d ${quoted(description)}`,
      ),
    ];
  });
  return `${lines.join('\n')}\n`;
}
