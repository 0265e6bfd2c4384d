"""Golden tensors of a checkpoint folder, from diffusers' and transformers' own classes in float32.

usage: golden.py CHECKPOINT OUT [WIDTHxHEIGHT ...]   the first size is the one of the pictures
needs: pip install torch diffusers==0.42.1 transformers==5.24 accelerate pillow
Environment: PROMPTS and TEXTS (JSON lists), STEPS, SEED. The format is described in docs/model-check.md.
"""
import json
import os
import sys

import numpy as np
import torch
from diffusers import QwenImagePipeline
from PIL import Image
from safetensors.torch import save_file

checkpoint, out = sys.argv[1], sys.argv[2]
sizes = [tuple(map(int, s.split("x"))) for s in sys.argv[3:]] or [(128, 128), (160, 96), (112, 80)]
prompts = json.loads(os.environ.get("PROMPTS", "null")) or ["a fox on a teal background", "a cute cat", " ", "A red apple, 4k. Two lines\n\nand 12 digits: 2026"]
steps = int(os.environ.get("STEPS", 20))
os.makedirs(out, exist_ok=True)
pipe = QwenImagePipeline.from_pretrained(checkpoint, torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
gen = torch.Generator().manual_seed(int(os.environ.get("SEED", 7)))
noise = lambda *shape: torch.randn(*shape, generator=gen)
keep = lambda name, tensors: save_file({k: v.detach().float().contiguous() for k, v in tensors.items()}, f"{out}/{name}.safetensors")

texts = prompts + json.loads(os.environ.get("TEXTS", "[]"))
template = pipe.prompt_template_encode
json.dump([{"text": t, "ids": pipe.tokenizer(template.format(t)).input_ids} for t in texts], open(f"{out}/tokens.json", "w", encoding="utf-8"), ensure_ascii=False, indent=1)

with torch.no_grad():
    states = [pipe.encode_prompt(prompt=p)[0] for p in prompts]
    keep("text", {str(i): s[0] for i, s in enumerate(states)})

    tensors = {}
    for n, (w, h) in enumerate(sizes):
        rows, cols = h // 16, w // 16
        latents, text = noise(1, rows * cols, 64), states[n % len(states)]
        for t in (1.0, 0.62, 0.02):
            v = pipe.transformer(hidden_states=latents, timestep=torch.tensor([t]), encoder_hidden_states=text, encoder_hidden_states_mask=None,
                                 img_shapes=[[(1, rows, cols)]], return_dict=False)[0]
            tensors[f"{w}x{h}.prompt{n % len(states)}.t{t}.velocity"] = v[0]
        tensors[f"{w}x{h}.latents"] = latents[0]
    keep("transformer", tensors)

    tensors = {}
    for w, h in sizes:
        z = 2 * noise(1, 16, 1, h // 8, w // 8)
        tensors[f"{w}x{h}.latents"], tensors[f"{w}x{h}.decoded"] = z[0, :, 0], pipe.vae.decode(z, return_dict=False)[0][0, :, 0]
        y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        image = torch.stack([torch.sin(3 * x + y), torch.cos(4 * y * x), (x * x + y * y < 0.5).float() * 2 - 1]) * 0.9
        tensors[f"{w}x{h}.image"], tensors[f"{w}x{h}.encoded"] = image, pipe.vae.encode(image[None, :, None]).latent_dist.mode()[0, :, 0]
    keep("vae", tensors)

    c, schedule = pipe.scheduler.config, []
    for n, tokens in ((20, 64), (4, 64), (8, 4096), (50, 6889)):
        m = (c.max_shift - c.base_shift) / (c.max_image_seq_len - c.base_image_seq_len)
        pipe.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / n, n), mu=m * tokens + c.base_shift - m * c.base_image_seq_len)
        schedule.append({"steps": n, "imageTokens": tokens, "sigmas": [float(s) for s in pipe.scheduler.sigmas], "timesteps": [float(t) for t in pipe.scheduler.timesteps]})
    json.dump(schedule, open(f"{out}/schedule.json", "w"), indent=1)

w, h = sizes[0]
tensors = {}
for name, guidance in (("cfg4", dict(negative_prompt=" ", true_cfg_scale=4.0)), ("plain", dict(true_cfg_scale=1.0))):
    start, track = noise(1, (h // 16) * (w // 16), 64), []
    image = pipe(prompt=prompts[0], width=w, height=h, num_inference_steps=steps, latents=start.clone(), output_type="pt",
                 callback_on_step_end=lambda p, i, t, kw: track.append(kw["latents"][0].clone()) or {}, **guidance).images[0]
    tensors[f"{name}.noise"], tensors[f"{name}.steps"], tensors[f"{name}.image"] = start[0], torch.stack(track), image
    Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(f"{out}/{name}.png")
keep("picture", tensors)
print("written", out, {k: tuple(v.shape) for k, v in tensors.items()})

# Over a picture: the mean of the encoder's distribution is taken, and the noise is given, so that nothing is left to chance.
from diffusers import QwenImageImg2ImgPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_img2img as module

module.retrieve_latents = lambda encoded, generator=None: encoded.latent_dist.mode()
over = QwenImageImg2ImgPipeline(**pipe.components)
over.set_progress_bar_config(disable=True)
strength, seed = 0.6, 11
y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
start = torch.stack([torch.sin(2 * x), torch.cos(3 * y), x * y]) * 0.9
drawn = torch.randn(1, 1, 16, h // 8, w // 8, generator=torch.Generator().manual_seed(seed))
track = []
image = over(prompt=prompts[0], negative_prompt=" ", true_cfg_scale=4.0, image=(start / 2 + 0.5)[None], strength=strength, width=w, height=h, num_inference_steps=steps,
             generator=torch.Generator().manual_seed(seed), output_type="pt", callback_on_step_end=lambda p, i, t, kw: track.append(kw["latents"][0].clone()) or {}).images[0]
keep("image_to_image", {"init": start, "noise": over._pack_latents(drawn, 1, 16, h // 8, w // 8)[0], "steps": torch.stack(track), "image": image,
                        "strength": torch.tensor([strength]), "numInferenceSteps": torch.tensor([float(steps)])})
