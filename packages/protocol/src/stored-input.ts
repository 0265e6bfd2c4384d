/** A picture from a file of this machine to draw over: what the command line asks, and what it is answered. */
import type { JobLimits, ModelDefaults, NativeRequest } from './job-request.js';

export interface InputQuestion {
  file: string;
  dataDir: string;
  /** Sides that were asked for, pixels. */
  given: Pick<NativeRequest, 'width' | 'height'>;
  defaults: ModelDefaults;
  limits: JobLimits;
}

/** As it lies in the data folder, scaled to the size that is drawn, pixels. */
export interface StoredInput {
  sha256: string;
  width: number;
  height: number;
}
