/** How a model is run within the memory of a machine: decided before it is loaded, followed by whoever loads it. */

export interface ModelPlan {
  /**
   * For pictures of at most so many pixels weights are multiplied the faster way, which takes more memory. 0: for none,
   * and then not for texts either.
   */
  fastPixels: number;
  /**
   * Pictures of at most so many pixels are drawn with all parts of the model in memory; for a larger one they are there
   * one after the other, as it needs them. 0: for every picture.
   */
  residentPixels: number;
  /** Bytes of the machine's memory that the largest picture takes, everything included. */
  neededBytes: number;
  /** The same of the graphics card's own; null without one. */
  cardBytes: number | null;
  /** Bytes of the machine's memory that there were when the plan was made. */
  availableBytes: number;
  /** Most pixels of a picture. */
  largestPixels: number;
  /** A picture of more pixels is decoded in tiles. */
  tileAbovePixels: number;
}

/** Of products with quantised weights: 4 is faster, 0 takes less memory. Texts have no pixels. */
export function accuracyFor({ fastPixels }: Pick<ModelPlan, 'fastPixels'>, pixels: number): 0 | 4 {
  return fastPixels > 0 && pixels <= fastPixels ? 4 : 0;
}
