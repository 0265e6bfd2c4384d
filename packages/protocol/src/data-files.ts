/**
 * Names of files in the data folder that one process writes and another reads or removes. Paths are relative to it.
 */

/** Folder of the checkpoints of running jobs. */
export const CHECKPOINTS_FOLDER = 'checkpoints';
/** Folder of finished pictures and their thumbnails. */
export const IMAGES_FOLDER = 'images';
/** Folder of the pictures that jobs draw over. */
export const INPUTS_FOLDER = 'inputs';

/** Folder for what children put aside while they work. */
export const TEMPORARY_FOLDER = 'tmp';

/** The name tells the step, so that the supervisor, which never reads a checkpoint, knows how far a job had got. */
export function checkpointName(jobId: string, step: number): string {
  return `${jobId}.${step}.ckpt`;
}

/** Job and completed steps of a checkpoint; null for the name of anything else. */
export function parseCheckpointName(name: string): { jobId: string; step: number } | null {
  const [, jobId, step] = /^(\w+)\.(\d+)\.ckpt$/.exec(name) ?? [];
  return jobId === undefined || step === undefined ? null : { jobId, step: Number(step) };
}

export function imageFile(imageId: string): string {
  return `${IMAGES_FOLDER}/${imageId}.png`;
}

/** What a picture's file is called: below the data folder, and nowhere else. */
export const IMAGE_FILE = /^images\/\w{1,100}\.png$/;

/** Longest sides of thumbnails, pixels. */
export const THUMBNAIL_SIDES = [256, 512] as const;
export type ThumbnailSide = (typeof THUMBNAIL_SIDES)[number];

/** Made when it is first asked for; removed with its picture. */
export function thumbnailFile(image: string, side: ThumbnailSide): string {
  return image.replace(/\.png$/, side === 256 ? '.thumbnail.webp' : `.thumbnail-${side}.webp`);
}

/** `sha256` is that of the file. */
export function inputFile(sha256: string): string {
  return `${INPUTS_FOLDER}/${sha256}.png`;
}

/** The log of supervisor and children: a JSON object per line. */
export function logFile(dataDir: string): string {
  return `${dataDir}/logs/supervisor.log`;
}

/** Folder of the models that were added. */
export const MODELS_FOLDER = 'models';
/** In a model's folder: what it is. Written last. */
export const MODEL_FILE = 'model.json';
/** Name of the model that is started where nobody names one. */
export const MODEL_IN_USE_FILE = 'model-in-use';

/** What `bench --probe` measured on the devices of this machine. */
export const PROBES_FILE = 'probes.json';

/** Where a model that was added lies. */
export function modelFolder(dataDir: string, name: string): string {
  return `${dataDir}/${MODELS_FOLDER}/${name}`;
}
