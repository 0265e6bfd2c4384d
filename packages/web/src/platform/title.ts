/** What is seen of this page from another tab: seldom changed, a title that flickers is a nuisance. */
const EVERY_MS = 5000;

let shown = { text: '', atMs: 0 };
let later: ReturnType<typeof setTimeout> | undefined;

/** `isNews`: shown at once; else at most every five seconds. */
export function showInTab(text: string, icon: 'icon' | 'icon-busy' | 'icon-bad', isNews: boolean): void {
  if (text === shown.text) return;
  clearTimeout(later);
  const waitMs = isNews ? 0 : Math.max(0, shown.atMs + EVERY_MS - Date.now());
  later = setTimeout(() => {
    shown = { text, atMs: Date.now() };
    document.title = text;
    document.getElementById('icon')?.setAttribute('href', `${icon}.svg`);
  }, waitMs);
}
