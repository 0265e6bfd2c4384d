/** Every act that has a key, once: for the keys, the palette, the list of keys, and the tests. */
import type { Job } from '@qwen-supervisor/protocol/job';
import { useLive } from '../live/store';
import { newSeed } from '../platform/ids';
import { go } from '../platform/place';
import { whyNot } from '../screens/create/form';
import { edit, useForm } from '../screens/create/form-store';
import * as jobs from './jobs';
import * as pictures from './pictures';
import { useUi } from './ui';

export type Scope = 'anywhere' | 'create' | 'queue' | 'gallery' | 'picture';

export interface Action {
  id: string;
  scope: Scope;
  words: string;
  /** As tinykeys writes them; `$mod` is Ctrl or ⌘. */
  keys: string[];
  /** Also while somebody types. */
  inFields?: true;
  /** True, or why not. */
  enabled(): true | string;
  /** Null: whatever has the focus does it. */
  run: (() => void) | null;
}

const always = () => true as const;
const act = (
  scope: Scope,
  id: string,
  words: string,
  keys: string[],
  run: Action['run'],
  enabled: Action['enabled'] = always,
): Action => ({ id, scope, words, keys, run, enabled });

function canSend(): true | string {
  const { state } = useLive.getState();
  return state ? (whyNot(useForm.getState().form, state.model) ?? true) : 'The server has not answered yet.';
}

function running(): Job | null {
  return useLive.getState().state?.running[0]?.job ?? null;
}

function queued(): Job | null {
  return useLive.getState().state?.queue.find(({ id }) => id === useUi.getState().queueFocus) ?? null;
}

function tryable(): Job | null {
  const job = useLive.getState().state?.ended.find(({ id }) => id === useUi.getState().queueFocus);
  return job && job.status !== 'done' ? job : null;
}

/** Of the large view: asked of the store that it fills. */
export const shown: { job: Job | null } = { job: null };

const onQueued = (run: (job: Job) => void) => () => {
  const job = queued();
  if (job) run(job);
};
const isQueued = () => (queued() ? true : 'No queued picture is chosen.');
const onShown = (run: (job: Job) => void) => () => {
  if (shown.job) run(shown.job);
};
const isShown = () => (shown.job ? true : 'No picture is shown.');

export const ACTIONS: readonly Action[] = [
  { ...act('anywhere', 'send', 'Send', ['$mod+Enter'], () => jobs.sendForm(), canSend), inFields: true },
  {
    ...act(
      'anywhere',
      'send-first',
      'Send, before all that wait',
      ['$mod+Shift+Enter'],
      () => jobs.sendForm(true),
      canSend,
    ),
    inFields: true,
  },
  { ...act('anywhere', 'palette', 'Commands', ['$mod+k'], () => useUi.setState({ open: 'palette' })), inFields: true },
  act('anywhere', 'help', 'Keys and settings', ['Shift+?', '?'], () => useUi.setState({ open: 'help' })),
  act('anywhere', 'create', 'Go to Create', ['1'], () => go('/')),
  act('anywhere', 'queue', 'Go to Queue', ['2'], () => go('/queue')),
  act('anywhere', 'gallery', 'Go to Gallery', ['3'], () => go('/gallery')),
  act('anywhere', 'system', 'Go to System', ['4'], () => go('/system')),
  act('anywhere', 'prompt', 'Write the prompt', ['p'], () => {
    go('/');
    requestAnimationFrame(() => document.getElementById('prompt')?.focus());
  }),
  act(
    'anywhere',
    'cancel-running',
    'Cancel the running picture',
    ['Shift+X'],
    () => {
      const job = running();
      if (job) void jobs.cancel(job.id);
    },
    () => (running() ? true : 'No picture is being drawn.'),
  ),
  act(
    'anywhere',
    'cancel-queued',
    'Cancel all queued pictures',
    [],
    () => void jobs.cancelScope({ scope: 'queued' }),
    () => (useLive.getState().state?.status.queue.queued ? true : 'Nothing is queued.'),
  ),
  act('create', 'shuffle', 'Another seed', ['s'], () => edit({ seed: newSeed() })),
  act('create', 'lock', 'Keep the seed, or not', ['l'], () =>
    edit({ isSeedLocked: !useForm.getState().form.isSeedLocked }),
  ),
  act('create', 'earlier', 'Earlier and later prompts', ['Alt+ArrowUp', 'Alt+ArrowDown'], null),
  act('queue', 'queue-walk', 'Next and previous', ['ArrowDown', 'ArrowUp'], null),
  act(
    'queue',
    'queue-up',
    'Move up',
    ['Alt+ArrowUp'],
    onQueued(({ id }) => void jobs.move(id, 'up')),
    isQueued,
  ),
  act(
    'queue',
    'queue-down',
    'Move down',
    ['Alt+ArrowDown'],
    onQueued(({ id }) => void jobs.move(id, 'down')),
    isQueued,
  ),
  act(
    'queue',
    'queue-first',
    'Move to the front',
    ['Alt+Home'],
    onQueued(({ id }) => void jobs.move(id, 'first')),
    isQueued,
  ),
  act(
    'queue',
    'queue-last',
    'Move to the end',
    ['Alt+End'],
    onQueued(({ id }) => void jobs.move(id, 'last')),
    isQueued,
  ),
  act(
    'queue',
    'queue-cancel',
    'Cancel the chosen one',
    ['Delete'],
    onQueued(({ id }) => void jobs.cancel(id)),
    isQueued,
  ),
  act(
    'queue',
    'queue-retry',
    'Retry the chosen one',
    ['r'],
    () => {
      const job = tryable();
      if (job) void jobs.retry(job.id);
    },
    () => (tryable() ? true : 'No picture that failed or was cancelled is chosen.'),
  ),
  act('queue', 'queue-open', 'Details of the chosen one', ['Enter'], null),
  act(
    'gallery',
    'gallery-walk',
    'Walk',
    ['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown', 'Home', 'End', 'PageUp', 'PageDown'],
    null,
  ),
  act('gallery', 'gallery-open', 'Show large', ['Enter'], null),
  act('gallery', 'gallery-select', 'Select, and with Shift several', ['Space'], null),
  act('gallery', 'gallery-star', 'Star', ['f'], null),
  act('gallery', 'gallery-trash', 'Into the trash', ['Delete'], null),
  act('gallery', 'search', 'Search', ['/'], () => document.getElementById('search')?.focus()),
  act(
    'gallery',
    'undo',
    'Take back out of the trash',
    ['$mod+z'],
    () => void pictures.undo(),
    () => (pictures.canUndo() ? true : 'Nothing was thrown away.'),
  ),
  act('picture', 'picture-walk', 'Next and previous', ['ArrowRight', 'ArrowLeft'], null),
  act('picture', 'close', 'Back', ['Escape'], null),
  act('picture', 'zoom', 'Fit, or real size', ['z'], null),
  act('picture', 'details', 'Details', ['i'], null),
  act(
    'picture',
    'picture-star',
    'Star',
    ['f'],
    onShown((job) => void pictures.star([job.id], !job.starred)),
    isShown,
  ),
  act(
    'picture',
    'download',
    'Download',
    ['d'],
    onShown(({ id }) => jobs.downloadPicture(id)),
    isShown,
  ),
  act(
    'picture',
    'copy',
    'Copy the prompt',
    ['c'],
    onShown((job) => void jobs.copyPrompt(job)),
    isShown,
  ),
  act(
    'picture',
    'use',
    'Use its settings',
    ['u'],
    onShown((job) => jobs.useSettings(job, false)),
    isShown,
  ),
  act(
    'picture',
    'use-seed',
    'Use its settings and its seed',
    ['Shift+U'],
    onShown((job) => jobs.useSettings(job, true)),
    isShown,
  ),
  act('picture', 'again', 'Same again, with another seed', ['a'], onShown(jobs.sameAgain), isShown),
  act('picture', 'input', 'Draw over it', ['b'], onShown(jobs.useAsInput), isShown),
  act('picture', 'picture-trash', 'Into the trash', ['Delete'], null),
  act(
    'picture',
    'picture-undo',
    'Take back out of the trash',
    ['$mod+z'],
    () => void pictures.undo(),
    () => (pictures.canUndo() ? true : 'Nothing was thrown away.'),
  ),
];

/** Of a key as people read it. */
export function keyName(key: string): string {
  const names: Record<string, string> = {
    $mod: 'Ctrl',
    ArrowUp: '↑',
    ArrowDown: '↓',
    ArrowLeft: '←',
    ArrowRight: '→',
    'Shift+?': '?',
  };
  return (
    names[key] ??
    key
      .split('+')
      .map((part) => names[part] ?? (part.length === 1 ? part.toUpperCase() : part))
      .join('+')
  );
}
