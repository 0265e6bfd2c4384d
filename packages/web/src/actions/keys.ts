/** Listens to the keys of the action table. */
import { tinykeys } from 'tinykeys';
import { here } from '../platform/place';
import { ACTIONS, type Action, type Scope } from './table';
import { tell, useUi } from './ui';

export function scopeOf(path: string): Scope {
  if (path.startsWith('/gallery/')) return 'picture';
  if (path.startsWith('/gallery')) return 'gallery';
  return path.startsWith('/queue') ? 'queue' : path === '/' ? 'create' : 'anywhere';
}

export function listenToKeys(): () => void {
  const bindings: Record<string, (event: KeyboardEvent) => void> = {};
  for (const key of new Set(ACTIONS.flatMap(({ keys }) => keys))) bindings[key] = (event) => press(key, event);
  // Which keys mean something in a field is said by the table; a key that is held is pressed once.
  return tinykeys(window, bindings, { ignore: ({ repeat }) => repeat });
}

function press(key: string, event: KeyboardEvent): void {
  // While a word is composed, as those who write Chinese do, keys mean nothing else.
  if (event.isComposing || event.keyCode === 229 || event.defaultPrevented) return;
  const scope = scopeOf(here());
  const action = ACTIONS.find((one) => one.keys.includes(key) && (one.scope === scope || one.scope === 'anywhere'));
  if (!action?.run || !isMeant(action, key, event)) return;
  event.preventDefault();
  const enabled = action.enabled();
  if (enabled === true) action.run();
  else tell(enabled);
}

function isMeant(action: Action, key: string, { target }: KeyboardEvent): boolean {
  const { open, singleKeys } = useUi.getState();
  if (open !== null) return false;
  const typing =
    target instanceof HTMLElement && target.matches('input:not([type=checkbox], [type=radio]), textarea, select');
  if (typing && !action.inFields) return false;
  const isSingle = !/\$mod|Alt|Delete|Escape/.test(key);
  return singleKeys || !isSingle;
}
