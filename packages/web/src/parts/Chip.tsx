import './parts.css';

interface Props {
  /** Of the choices of which one is taken. */
  group: string;
  words: string;
  title?: string;
  checked: boolean;
  onChoose(): void;
}

/** One of a few choices. */
export function Chip({ group, words, title, checked, onChoose }: Props) {
  return (
    <label className="chip" title={title}>
      <input type="radio" name={group} checked={checked} onChange={onChoose} />
      {words}
    </label>
  );
}
