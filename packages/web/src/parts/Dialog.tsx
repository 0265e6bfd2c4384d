import { type ReactNode, useLayoutEffect, useRef } from 'react';
import { Button } from './Button';

/**
 * The browser's own: it keeps the focus inside, Escape closes it, and the focus goes back to where it was. What has
 * `data-first` gets it at first.
 */
export function Dialog({ title, onClose, children }: { title: string; onClose(): void; children: ReactNode }) {
  const ref = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const dialog = ref.current as HTMLDialogElement;
    dialog.showModal();
    dialog.querySelector<HTMLElement>('[data-first]')?.focus();
    // While it is still there: one that is taken away while it is open gives no focus back.
    return () => dialog.close();
  }, []);
  return (
    <dialog ref={ref} className="dialog" aria-label={title} onClose={onClose}>
      <header className="row">
        <h2 className="grow">{title}</h2>
        <Button icon="close" iconOnly kind="quiet" onClick={onClose}>
          Close
        </Button>
      </header>
      {children}
    </dialog>
  );
}
