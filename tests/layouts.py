"""Tiny checkpoints and data in the published layouts: LLaVA-1.5's folder, its instruction data."""

import json
import random
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from train.mini.instruct import random_conversation

CHAT_TEMPLATE = (
    "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>\n"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
)
"""LLaVA-1.5's way of asking, in short."""


def write_tokenizer(folder: Path) -> None:
    """Train a Llama-style sentencepiece tokenizer (BPE, byte fallback) on our texts."""
    rng = random.Random(0)
    lines = [m["content"] for _ in range(200) for m in random_conversation(rng)]
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(lines), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=420,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        pad_id=-1,
        minloglevel=2,
    )
    corpus.unlink()
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False}
    config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_llava(folder: Path) -> Path:
    """Write a LLaVA-1.5 in everything but its widths; its tower has all 24 layers."""
    folder.mkdir(parents=True)
    write_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image>", "<pad>"], special_tokens=True)
    tokenizer.pad_token = "<pad>"
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=32,
            patch_size=8,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=24,
            num_attention_heads=4,
            projection_dim=32,
        ),
        text_config=LlamaConfig(
            vocab_size=448,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(folder)
    return folder


def row(number: int, *turns: str) -> dict:
    """Return a row in LLaVA's layout: questions and answers in turn."""
    speakers = ("human", "gpt")
    talk = [{"from": speakers[k % 2], "value": t} for k, t in enumerate(turns)]
    talk[0]["value"] = f"<image>\n{talk[0]['value']}"
    return {"id": str(number), "image": f"{number // 10:05d}/{number}.jpg", "conversations": talk}


def write_instructions(folder: Path, count: int = 24) -> tuple[Path, Path]:
    """Write rows and their pictures; return the file and the folder."""
    rng, rows = np.random.default_rng(0), []
    for k in range(count):
        kind = ("Happiness", "Anger", "Surprise")[k % 3]
        answer = f"{kind}. The person shows it" + " clearly" * (k % 5) + "."
        rows.append(row(k, "Please describe the expression in this face.", answer))
        path = folder / "images" / rows[-1]["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (folder / "rows.json").write_text(json.dumps(rows, indent=1))
    return folder / "rows.json", folder / "images"
