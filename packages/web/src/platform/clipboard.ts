/** Copies a text; false where this browser does not let a page do it. Over plain http only the old way is there. */
export async function copyText(text: string): Promise<boolean> {
  if (navigator.clipboard) {
    const copied = await navigator.clipboard.writeText(text).then(
      () => true,
      (error: Error) => {
        console.info(`the clipboard refuses: ${error.message}`);
        return false;
      },
    );
    if (copied) return true;
  }
  const field = document.createElement('textarea');
  field.value = text;
  field.className = 'visually-hidden';
  const focused = document.activeElement;
  document.body.append(field);
  field.select();
  const copied = document.execCommand('copy');
  field.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return copied;
}
