"""The pictures of pictures.js with diffusers on the CPU, in float32. Prints the seconds of each as JSON.

usage: diffusers_pictures.py CHECKPOINT   needs: pip install torch diffusers==0.42.1 transformers==5.24 accelerate
"""
import json
import sys
import time

import torch
from diffusers import QwenImagePipeline

pipe = QwenImagePipeline.from_pretrained(sys.argv[1], torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
times = []
for seed in range(9):
    start = time.perf_counter()
    pipe(prompt="a fox on a teal background", negative_prompt=" ", true_cfg_scale=4.0, width=128, height=128, num_inference_steps=20,
         generator=torch.Generator().manual_seed(seed))
    times.append(time.perf_counter() - start)
print(json.dumps(times[1:]))
