/** What the help of a command ends with: how it is used. */
import type { Command } from 'commander';

type Example = readonly [command: string, does: string];

/** After `qwen-supervisor`; the help of a command has those that begin with its words. */
export const EXAMPLES: readonly Example[] = [
  ['start', 'here, until Ctrl+C'],
  ['start --model qwen-image-int4 --device auto', 'a model that was added, on the best device'],
  ['start --host 0.0.0.0 --keys-file keys.txt', 'for the whole house, with keys'],
  ['stop', 'accepted jobs are kept'],
  ['restart', 'the worker, after what it failed on was mended'],
  ['restart inference-2', 'the worker of the second device'],
  ['restart api', 'clients are answered by a new process; no job is lost'],
  ['reload', 'after qwen-supervisor.toml was changed'],
  ['status', 'a line for each process'],
  ['status --watch', 'the whole screen, as long as you look'],
  ['status --json', 'the same for programs'],
  ['open', 'the page in a browser'],
  ['open --print', 'its address'],
  ['generate a fox on a teal background -o fox.png', 'one picture'],
  ['generate -n 4 --seed 1 "a cat, blue background" -o cats/', 'four, into a folder'],
  ['generate --image fox.png --strength 0.6 "a fox in the snow"', 'over another one'],
  ['generate --detach --json - < prompts.txt', 'a line of the file each, without waiting'],
  ['jobs list --status failed', 'what went wrong of late'],
  ['jobs show job_0123', 'everything about one'],
  ['jobs cancel job_0123', 'one'],
  ['jobs cancel --queued', 'all that wait'],
  ['jobs retry job_0123', 'one that failed, again'],
  ['jobs move job_0123 --first', 'draw it next'],
  ['events --follow', 'what happens, as it happens'],
  ['machines list', 'who draws this queue'],
  ['machines drain cellar', 'before it is switched off'],
  ['machines resume cellar', 'when it is back'],
  ['logs --follow', 'as it grows'],
  ['logs --lines 1000 --json', 'the last records, for programs'],
  ['crashes', 'what ended that should not have, and its last words'],
  ['model add ~/Qwen-Image', 'prepare it in what the memory is enough for'],
  ['model add ~/Qwen-Image --quantize int4 --lightning Qwen-Image-Lightning-8steps.safetensors', 'in 8 steps'],
  ['model list', 'what was added'],
  ['model show qwen-image-int4', 'what it is made of'],
  ['model verify qwen-image-int4', 'whether a disk has damaged it'],
  ['model use qwen-image-int4', 'from the next start on'],
  ['model remove qwen-image-int4', 'what was prepared; the checkpoint stays'],
  ['model plan ~/Qwen-Image --memory 16GiB --size 1328x1328', 'will it do, and how long does a picture take?'],
  ['model check pocket --golden golden/', 'does it compute here what it computes elsewhere?'],
  ['device list', 'every card, and what is missing'],
  ['gpu install', "CUDA's libraries, for an NVIDIA card"],
  ['gpu install --from ~/Downloads/wheels', 'from files that were fetched elsewhere'],
  ['gpu status', 'what is installed'],
  ['gpu remove', 'give the disk space back'],
  ['doctor', 'what keeps this machine from drawing'],
  ['doctor --json', 'the same for programs'],
  ['verify', 'a whole system in a scratch folder, with a killed worker'],
  ['verify --url http://127.0.0.1:8000', 'one that runs, without a kill'],
  ['bench', 'where the time goes'],
  ['bench --find-threads --write --config qwen.toml', 'the number of threads with the shortest step'],
  ['bench --probe', 'how fast the device is; a text to paste into an issue'],
  ['config show', 'every setting, and where it comes from'],
  ['config check --config qwen.toml', 'before it is put in place'],
  ['config schema > qwen-supervisor.schema.json', 'for an editor that helps'],
  ['keys add kim', 'prints the key, once'],
  ['keys add kim --admin', 'one that may also restart'],
  ['keys list', 'whose there are'],
  ['keys remove kim', 'from the next reload on'],
  ['store migrate --store postgres://qwen@nas.lan/qwen', 'once, and after an upgrade that asks for it'],
  ['service install', 'from login on'],
  ['service install --system --as qwen --socket', 'from boot on; no client is refused over a restart'],
  ['service print', 'what would be written'],
  ['service uninstall', 'jobs, pictures and models stay'],
  ['service status', 'what systemd says of it'],
];

/** In the help of all commands together. */
const FIRST = ['start', 'service install', 'generate a fox', 'status --watch', 'doctor'];

/** Adds them to a command and to those below it. */
export function addExamples(command: Command, path = ''): void {
  const own =
    path === ''
      ? FIRST.map((begin) => EXAMPLES.find(([example]) => example.startsWith(begin)) as Example)
      : EXAMPLES.filter(([example]) => example === path || example.startsWith(`${path} `));
  if (own.length > 0) command.addHelpText('after', helpOf(own));
  for (const sub of command.commands) addExamples(sub, `${path} ${sub.name()}`.trim());
}

/** What it does stands beside a short command, and below a long one. */
function helpOf(examples: readonly Example[]): string {
  const width = Math.min(44, Math.max(...examples.map(([example]) => example.length)));
  const lines = examples.map(([example, does]) => {
    const command = `  qwen-supervisor ${example}`;
    return example.length > width
      ? `${command}\n${' '.repeat(width + 20)}${does}`
      : `${command.padEnd(width + 20)}${does}`;
  });
  return `\nExamples:\n${lines.join('\n')}`;
}
