"""Writing with the language model: cached, greedy or sampled, one answer or several at once.

Everything works on ids whose image placeholders are filled from `image_embeds` (B, K, D_t), so
that a face is encoded once however long the talk.
"""

from collections.abc import Iterator

import torch
from transformers import Cache, DynamicCache

from feallm import ending
from feallm.modeling import FEALLMForConditionalGeneration

Model = FEALLMForConditionalGeneration


def embed(model: Model, input_ids: torch.Tensor, image_embeds: torch.Tensor) -> torch.Tensor:
    """Return (B, T, D_t): the ids' embeddings with the face's tokens in their places.

    Raises:
        ValueError: placeholders and image tokens differ in number.
    """
    embeds = model.get_input_embeddings()(input_ids)
    mask = input_ids == model.config.image_token_id
    if int(mask.sum()) != image_embeds.shape[0] * image_embeds.shape[1]:
        raise ValueError(
            f"{int(mask.sum())} image placeholders for {image_embeds.shape[0]} x "
            f"{image_embeds.shape[1]} image tokens."
        )
    return embeds.masked_scatter(mask.unsqueeze(-1), image_embeds.to(embeds))


def common_length(lists: list[list[int]]) -> int:
    """Return the length of the beginning that all lists share."""
    length = 0
    for column in zip(*lists, strict=False):
        if len(set(column)) > 1:
            break
        length += 1
    return length


def next_scores(
    model: Model,
    cache: Cache,
    embeds: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Read embeddings (B, T, D_t) into a cache; return the next token's scores (B, V) in fp32.

    The mask and the positions are needed where rows are padded.
    """
    ending.check()
    # by place: transformers 5.24 calls the cache another name than 5.23
    out = model.model.language_model(
        None, attention_mask, position_ids, cache, inputs_embeds=embeds, use_cache=True
    )
    return model.lm_head(out.last_hidden_state[:, -1]).float()


def copied(cache: Cache, model: Model, row: int, places: slice) -> DynamicCache:
    """Return a cache of its own with some tokens of one row of a cache."""
    result = DynamicCache(config=model.config.text_config)
    for number, layer in enumerate(cache.layers):
        keys, values = (
            part[row : row + 1, :, places].clone() for part in (layer.keys, layer.values)
        )
        result.update(keys, values, number)
    return result


class Reader:
    """One conversation's key-value cache: reads ids, tells what could come next, steps back.

    Several faces may be asked the same at once: each is a row of `image_embeds` (B, K, D_t).
    `ids` are those in the cache; `logits` (B, V) are the fp32 scores of the token after them.
    """

    def __init__(self, model: Model, image_embeds: torch.Tensor):
        self.model, self.image_embeds = model, image_embeds
        self.cache = DynamicCache(config=model.config.text_config)
        self.ids: list[int] = []

    def turn_to(self, ids: list[int]) -> None:
        """Read a conversation about the faces; of its beginning, what was read before is kept."""
        shared = common_length([self.ids, ids[:-1]])  # the last id is read for its logits
        if self.model.config.image_token_id in ids[shared:]:
            shared = 0
        self._forget(shared)
        tensor = self._tensor(ids[shared:])
        if shared:
            self._advance(ids[shared:], self.model.get_input_embeddings()(tensor))
        else:
            self._advance(ids, embed(self.model, tensor, self.image_embeds))

    def read(self, ids: list[int]) -> None:
        """Read more ids (no image among them)."""
        if ids:
            self._advance(ids, self.model.get_input_embeddings()(self._tensor(ids)))

    def _tensor(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([ids], device=self.model.device).expand(len(self.image_embeds), -1)

    def _advance(self, ids: list[int], embeds: torch.Tensor) -> None:
        logits = next_scores(self.model, self.cache, embeds)
        self.ids += ids
        self.logits = logits

    def _forget(self, length: int) -> None:
        """Forget all but the first `length` ids."""
        self.cache.crop(length - len(self.ids))
        del self.ids[length:]

    def back_to(self, length: int, logits: torch.Tensor) -> None:
        """Forget all but the first `length` ids; `logits` as they were then."""
        self._forget(length)
        self.logits = logits

    @property
    def nbytes(self) -> int:
        """The cache's size in memory."""
        return sum(
            part.nbytes for layer in self.cache.layers for part in (layer.keys, layer.values)
        )

    def masses(self, options: list[list[int]]) -> torch.Tensor:
        """Return (B, n): the probability of each option as the text's continuation.

        An option's mass is that of its shortest beginning no other option shares. One cached walk;
        the reader is left where it was.
        """
        length, logits = len(self.ids), self.logits
        chance = logits.softmax(-1)  # (B, V)
        result = torch.zeros(len(logits), len(options), device=logits.device)
        for token in dict.fromkeys(o[0] for o in options):
            here = [i for i, o in enumerate(options) if o[0] == token]
            result[:, here] = chance[:, token, None]
            if len(here) > 1:
                self.read([token])
                result[:, here] *= self.masses([options[i][1:] for i in here])
                self.back_to(length, logits)
        return result


def pick(logits: torch.Tensor, temperature: float, generator: torch.Generator | None) -> int:
    """Return the likeliest token, or one drawn at a temperature above 0."""
    if temperature <= 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))


def stream(
    reader: Reader,
    eos_token_id: int,
    max_new_tokens: int,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Yield the ids of one face's answer as they are written; closing stops at once."""
    for _ in range(max_new_tokens):
        token = pick(reader.logits[0], temperature, generator)
        if token == eos_token_id:
            return
        yield token
        reader.read([token])


@torch.inference_mode()
def complete(
    model: Model,
    prompts: list[list[int]],
    image_embeds: torch.Tensor,
    *,
    pad_token_id: int,
    eos_token_id: int,
    max_new_tokens: int,
) -> list[list[int]]:
    """Continue several prompts greedily in one batch; return the new ids of each.

    Args:
        prompts: P lists of ids, each with its K placeholders.
        image_embeds: (P, K, D_t), a face for each prompt, or (1, K, D_t), one face for all.
    """
    device, longest = model.device, max(map(len, prompts))
    ids = torch.tensor([[pad_token_id] * (longest - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    embeds = embed(model, ids, image_embeds.expand(len(prompts), -1, -1))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config.text_config)
    answers: list[list[int]] = [[] for _ in prompts]
    going = [True] * len(prompts)
    for _ in range(max_new_tokens):
        scores = next_scores(model, cache, embeds, attention_mask=mask, position_ids=positions)
        tokens = scores.argmax(-1)
        for i, token in enumerate(tokens.tolist()):
            going[i] = going[i] and token != eos_token_id
            if going[i]:
                answers[i].append(token)
        if not any(going):
            break
        embeds = model.get_input_embeddings()(tokens[:, None])
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return answers
