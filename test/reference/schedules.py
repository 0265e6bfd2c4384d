"""Writes test/fixtures/schedules.json: sigma schedules of diffusers' scheduler under other configurations.

usage: schedules.py OUT   needs: pip install torch diffusers==0.42.1
"""
import json
import sys

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler

QWEN = dict(base_image_seq_len=256, base_shift=0.5, max_image_seq_len=8192, max_shift=0.9, shift_terminal=0.02, use_dynamic_shifting=True)
CONFIGS = [
    QWEN,
    dict(QWEN, base_shift=1.0986122886681098, max_shift=1.0986122886681098, shift_terminal=None),
    dict(QWEN, time_shift_type="linear"),
    dict(QWEN, use_karras_sigmas=True),
    dict(QWEN, use_exponential_sigmas=True),
    dict(QWEN, num_train_timesteps=500),
    dict(shift=3.0),
    dict(use_dynamic_shifting=True),
]
out = []
for config in CONFIGS:
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    c = scheduler.config
    for steps, tokens in ((2, 64), (7, 4096), (20, 6889)):
        m = (c.max_shift - c.base_shift) / (c.max_image_seq_len - c.base_image_seq_len)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=m * tokens + c.base_shift - m * c.base_image_seq_len)
        out.append(dict(config=dict(config, _class_name="FlowMatchEulerDiscreteScheduler"), steps=steps, imageTokens=tokens,
                        sigmas=scheduler.sigmas.tolist(), timesteps=scheduler.timesteps.tolist()))
json.dump(out, open(sys.argv[1], "w"), indent=1)
