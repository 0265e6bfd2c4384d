"""Writes test/fixtures/tokens.json: token ids of random nasty prompts, from transformers' own tokenizer.

usage: tokens.py TOKENIZER_FOLDER OUT   needs: pip install transformers==5.24
"""
import json
import random
import sys

from transformers import AutoTokenizer

TEMPLATE = "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
POOL = list("abcXYZ'sTdRElL  \n\n\r\t.,!?0123456789éüñçßİıſK日本語狐中文한국🦊👨‍👩‍👧🏽\u0301\u00a0\u2003\u200d\u3000½²٣अ्ก้\u1ef1\u0344{}<|>$&`#\\_-—'’")
POOL += ["it's", "I'LL", "don't ", "   ", "\n \n", "fox ", "cat", "e\u0301", "\u212b", "\ufb01", "\u0085", "\u2028", "\ufeff"]
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
rng = random.Random(2)
texts = ["".join(rng.choice(POOL) for _ in range(rng.randint(1, 25))) for _ in range(300)]
texts += [" ", "a fox", "狐狸在青色背景上", "🦊 on teal", "$& $1 $$", "{}", "x" * 300]
json.dump([{"text": t, "ids": tokenizer(TEMPLATE.replace("{}", t)).input_ids[34:]} for t in texts], open(sys.argv[2], "w", encoding="utf-8"), ensure_ascii=False)
