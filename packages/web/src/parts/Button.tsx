import type { ReactNode } from 'react';
import { Icon, type IconName } from './Icon';
import './parts.css';

interface Props {
  children: ReactNode;
  onClick(): void;
  kind?: 'plain' | 'primary' | 'quiet' | 'danger';
  icon?: IconName;
  /** The words are for those who do not see the icon, and its title. */
  iconOnly?: boolean;
  pressed?: boolean;
  /** Why it cannot be done; it is said instead. */
  reason?: string | null;
  title?: string;
  filled?: boolean;
}

/** A button that cannot be pressed says why, and can still be found. */
export function Button({
  children,
  onClick,
  kind = 'plain',
  icon,
  iconOnly = false,
  pressed,
  reason,
  title,
  filled,
}: Props) {
  const hint = reason ?? title ?? (iconOnly && typeof children === 'string' ? children : undefined);
  return (
    <button
      type="button"
      className={`button ${kind}${iconOnly ? ' icon-only' : ''}`}
      aria-pressed={pressed}
      aria-disabled={reason ? true : undefined}
      title={hint}
      onClick={() => {
        if (!reason) onClick();
      }}
    >
      {icon && <Icon name={icon} filled={filled ?? false} />}
      <span className={iconOnly ? 'visually-hidden' : undefined}>{children}</span>
    </button>
  );
}
