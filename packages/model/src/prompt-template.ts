/**
 * The ChatML frame of a text-to-image prompt. Text and drop count: diffusers `pipeline_qwenimage.py`,
 * `prompt_template_encode` and `prompt_template_encode_start_idx`.
 */
export const PROMPT_TEMPLATE =
  '<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n';

/** Leading tokens whose states are not used: the template's own, up to the prompt. */
export const TEMPLATE_TOKENS = 34;

/** Most prompt states that the pipeline uses (`max_sequence_length` of the pipeline's call), closing frame included. */
export const PROMPT_STATES_MAX = 512;

/** Most that the reference's tokenizer lets through. */
export const PROMPT_TOKENS_MAX = 1024;
