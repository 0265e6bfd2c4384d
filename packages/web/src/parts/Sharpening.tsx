import { useEffect, useRef, useState } from 'react';

interface Props {
  src: string;
  alt: string;
  width: number;
  height: number;
  /** Of a finished one pixels are pixels. */
  isPreview?: boolean;
}

/**
 * Pictures that follow one another: the one before stays until the next can be shown, so that nothing flashes. Where they
 * come faster than they can be decoded, some are left out.
 */
export function Sharpening({ src, alt, width, height, isPreview = false }: Props) {
  const [shown, setShown] = useState(src);
  const waiting = useRef<string | null>(null);
  const isDecoding = useRef(false);
  useEffect(() => {
    waiting.current = src;
    if (isDecoding.current) return;
    isDecoding.current = true;
    void (async () => {
      for (let next = waiting.current; next !== null; next = waiting.current) {
        waiting.current = null;
        const image = new Image();
        image.src = next;
        // One that cannot be decoded is shown as the browser shows such.
        await image.decode().catch((error: Error) => console.info(error.message));
        setShown(next);
      }
      isDecoding.current = false;
    })();
  }, [src]);
  const isSmall = !isPreview && Math.max(width, height) <= 512;
  return (
    <img className="sharpening" src={shown} alt={alt} width={width} height={height} data-small={isSmall || undefined} />
  );
}
