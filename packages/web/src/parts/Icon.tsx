/** Strokes of Lucide (ISC licence), those that are used. */
const PATHS = {
  star: 'M12 2.5l2.9 6 6.6.9-4.8 4.6 1.2 6.5-5.9-3.2-5.9 3.2 1.2-6.5L2.5 9.4l6.6-.9z',
  trash: 'M3 6h18M8 6V4h8v2M6 6l1 15h10l1-15M10 11v6M14 11v6',
  close: 'M18 6 6 18M6 6l12 12',
  shuffle: 'M2 18h2l10-12h6M16 3l4 3-4 3M2 6h2l3 4M12 15l2 3h6M16 15l4 3-4 3',
  lock: 'M5 11h14v10H5zM8 11V7a4 4 0 0 1 8 0v4',
  unlock: 'M5 11h14v10H5zM8 11V7a4 4 0 0 1 7.5-2',
  up: 'M12 19V5M5 12l7-7 7 7',
  down: 'M12 5v14M5 12l7 7 7-7',
  download: 'M12 3v12M6 11l6 6 6-6M4 21h16',
  back: 'M19 12H5M12 19l-7-7 7-7',
  next: 'M5 12h14M12 5l7 7-7 7',
  copy: 'M9 9h12v12H9zM15 9V3H3v12h6',
  image: 'M3 3h18v18H3zM8.5 10a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3M21 15l-5-5L5 21',
  again: 'M3 12a9 9 0 1 0 3-6.7L3 8M3 3v5h5',
  sliders: 'M4 6h10M18 6h2M4 12h2M10 12h10M4 18h8M16 18h4M16 4v4M8 10v4M14 16v4',
  first: 'M5 3h14M12 21V8M6 14l6-6 6 6',
  last: 'M5 21h14M12 3v13M6 10l6 6 6-6',
  info: 'M12 22a10 10 0 1 0 0-20 10 10 0 0 0 0 20M12 16v-5M12 8h.01',
  help: 'M12 22a10 10 0 1 0 0-20 10 10 0 0 0 0 20M9 9a3 3 0 1 1 4.5 2.6c-.9.5-1.5 1-1.5 2.1M12 17h.01',
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, filled = false }: { name: IconName; filled?: boolean }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" data-filled={filled || undefined}>
      <path d={PATHS[name]} />
    </svg>
  );
}
