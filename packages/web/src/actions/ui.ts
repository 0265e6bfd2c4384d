/** What is open beside the screen, and what a person is told for a moment. */
import { create } from 'zustand';
import { load, save } from '../platform/storage';

export interface Notice {
  id: number;
  text: string;
  tone: 'info' | 'bad';
  undo: (() => void) | null;
}

export type Theme = 'system' | 'light' | 'dark';

interface Ui {
  open: 'help' | 'palette' | null;
  notices: readonly Notice[];
  /** Keys without Ctrl, Alt or the like. */
  singleKeys: boolean;
  notifies: boolean;
  theme: Theme;
  /** Job of the row that has the focus in the queue. */
  queueFocus: string | null;
}

export const useUi = create<Ui>(() => ({
  open: null,
  notices: [],
  singleKeys: load<boolean>('singleKeys') ?? true,
  notifies: load<boolean>('notices') ?? false,
  theme: load<Theme>('theme') ?? 'system',
  queueFocus: null,
}));

/** Notices go by themselves, except those of errors. */
const NOTICE_MS = 10_000;
let count = 0;

export function tell(text: string, { tone = 'info', undo = null }: Partial<Pick<Notice, 'tone' | 'undo'>> = {}): void {
  const id = ++count;
  useUi.setState(({ notices }) => ({ notices: [...notices, { id, text, tone, undo }].slice(-3) }));
  if (tone === 'info') setTimeout(() => dismiss(id), NOTICE_MS);
}

export function tellError(error: Error & { hint?: string }): void {
  tell(error.hint ? `${error.message} ${error.hint}` : error.message, { tone: 'bad' });
}

export function dismiss(id: number): void {
  useUi.setState(({ notices }) => ({ notices: notices.filter((notice) => notice.id !== id) }));
}

export function setTheme(theme: Theme): void {
  save('theme', theme);
  useUi.setState({ theme });
  showTheme();
}

export function showTheme(): void {
  document.documentElement.dataset.theme = useUi.getState().theme;
}

export function setSingleKeys(singleKeys: boolean): void {
  save('singleKeys', singleKeys);
  useUi.setState({ singleKeys });
}

export function setNotifies(notifies: boolean): void {
  save('notices', notifies);
  useUi.setState({ notifies });
}
