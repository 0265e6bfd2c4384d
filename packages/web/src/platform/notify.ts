/** Notices of the system that the browser runs on. */

/** Why there can be none, or null where there can. */
export function whyNoNotices(): string | null {
  if (!window.isSecureContext)
    return 'Browsers show notices only for pages over https, or on the machine that serves them.';
  if (!('Notification' in window)) return 'This browser shows no notices.';
  if (Notification.permission === 'denied') return 'This browser was told to show no notices of this page.';
  return null;
}

export async function askForNotices(): Promise<boolean> {
  return whyNoNotices() === null && (await Notification.requestPermission()) === 'granted';
}

/** Only while nobody looks at the page. */
export function notify(text: string): void {
  if (document.visibilityState === 'visible' || whyNoNotices() !== null) return;
  if (Notification.permission === 'granted')
    new Notification('qwen-supervisor', { body: text, tag: 'qwen-supervisor' });
}
