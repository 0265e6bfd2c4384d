/** A picture from a drop, a paste or a file: something to draw over, or the settings that it was made with. */
import { readPngTexts } from '@qwen-supervisor/protocol/png-text';
import { tell } from '../../actions/ui';
import { useLive } from '../../live/store';
import { fromTexts } from './form';
import { edit, replaceForm, useForm } from './form-store';

/** `settings`: those, if it has any; else it is drawn over. */
export async function takePicture(file: File, wish: 'settings' | 'input'): Promise<void> {
  const model = useLive.getState().state?.model;
  if (!/^image\/(png|jpeg|webp|avif|gif|tiff)$/.test(file.type))
    return refuse(`${file.name || 'This file'} is no picture that can be drawn over. Take a PNG, JPEG or WebP.`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  const restored = wish === 'settings' ? fromTexts(readPngTexts(bytes), useForm.getState().form) : null;
  if (restored) {
    replaceForm(() => restored);
    return tell('The settings of this picture are in the form.');
  }
  // As text it is a third larger.
  if (model && bytes.length * 1.34 > model.limits.maxUploadBytes)
    return refuse(
      `This picture is larger than the server takes: ${Math.round(model.limits.maxUploadBytes / 1.34e6)} MB.`,
    );
  const value = await asDataUrl(file);
  edit({ source: { value, shown: value } });
  useForm.setState({ problem: null });
  if (wish === 'settings') tell('This picture has no settings in it. It is taken as the one to draw over.');
}

function refuse(problem: string): void {
  useForm.setState({ problem });
}

function asDataUrl(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
