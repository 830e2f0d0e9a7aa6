"""Train the mini's own tokenizer on the texts of our FEA data.

Run as:

    python -m train.mini.tokenizer --out runs/mini-tokenizer

Built as Llama's: byte-pair merges within words, spaces as "▁", bytes for what it never met, so
that nothing a person types is unknown.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from feallm.conversation import SYSTEM_PROMPT
from train.fea.questions import TEMPLATES, ask
from train.mini.instruct import random_conversation

SPECIAL = ("<unk>", "<s>", "</s>", "<image>", "<pad>")


def corpus(conversations: int, seed: int) -> Iterator[str]:
    """Yield segments as `conversation.encode` tokenises them."""
    rng = random.Random(seed)
    for kind in TEMPLATES:
        yield from (ask(kind, rng) for _ in range(conversations // 10))
    for _ in range(conversations):
        yield f"{SYSTEM_PROMPT} USER:"
        for message in random_conversation(rng):
            text = message["content"]
            yield f"USER: {text} ASSISTANT:" if message["role"] == "user" else text


def train_tokenizer(vocab_size: int, conversations: int, seed: int) -> PreTrainedTokenizerFast:
    """Return the trained tokenizer; ids 0 to 4 are `SPECIAL`, then the 256 bytes."""
    space = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    split = pre_tokenizers.Sequence([space, pre_tokenizers.Punctuation("isolated")])
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = split
    letters = [chr(c) for c in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL) - 256, initial_alphabet=letters, show_progress=False
    )
    raw.train_from_iterator(corpus(conversations, seed), trainer)
    learnt = raw.get_vocab()
    merges = [tuple(m) for m in _merges(raw)]
    tokens = [*SPECIAL, *(f"<0x{b:02X}>" for b in range(256)), *sorted(learnt, key=learnt.get)]
    vocab = {token: i for i, token in enumerate(tokens)}
    final = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    # a Llama's keeps the space before a picture, "USER: <image>"; here it would be one token more
    final.normalizer = normalizers.Replace(Regex(r" +\z"), "")
    final.pre_tokenizer = split
    final.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=final,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    import json

    return json.loads(tokenizer.to_str())["model"]["merges"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--conversations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tokenizer = train_tokenizer(args.vocab_size, args.conversations, args.seed)
    tokenizer.save_pretrained(args.out)
    print(f"{len(tokenizer)} tokens in {args.out}")


if __name__ == "__main__":
    main()
