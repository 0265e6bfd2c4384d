import { useEffect, useRef, useState } from 'react';

interface Props {
  src: string;
  alt: string;
  width: number;
  height: number;
  /** Of a finished one pixels are pixels. */
  isPreview?: boolean;
}

/** Pictures that follow one another: the one before stays until the next can be shown, so that nothing flashes. */
export function Sharpening({ src, alt, width, height, isPreview = false }: Props) {
  const [shown, setShown] = useState(src);
  const newest = useRef(src);
  useEffect(() => {
    newest.current = src;
    const next = new Image();
    next.src = src;
    const show = () => {
      if (newest.current === src) setShown(src);
    };
    // One that cannot be decoded is shown as the browser shows such.
    next.decode().then(show, show);
  }, [src]);
  const isSmall = !isPreview && Math.max(width, height) <= 512;
  return (
    <img className="sharpening" src={shown} alt={alt} width={width} height={height} data-small={isSmall || undefined} />
  );
}
