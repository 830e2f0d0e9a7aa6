"""The conversation as the language model reads it: Vicuna v1's template, ids and loss mask at once.

    <s>A chat ... questions. USER: <image>...\\n{question} ASSISTANT: {answer}</s>USER: ...

One function serves chat and training, so they cannot drift apart. Each segment is tokenised by
itself, as LLaVA does around its image; a person's words never become special tokens, not even if
they type "<image>".
"""

from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100
SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
CHAT_TEMPLATE = (
    "{% macro text(m) %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{% endif %}{% endmacro %}"
    "{{ bos_token }} {% if messages[0].role == 'system' %}{{ text(messages[0]) }}{% else %}"
    f"{SYSTEM_PROMPT}"
    "{% endif %}{% for m in messages if m.role != 'system' %}"
    "{{ ' USER: ' if m.role == 'user' else ' ' }}"
    "{% if m.content is not string %}{% for part in m.content if part.type == 'image' %}"
    "<image> {{ '\\n' }}{% endfor %}{% endif %}"
    "{{ text(m) }}{{ ' ASSISTANT:' if m.role == 'user' else eos_token }}{% endfor %}"
)
"""The template for servers, which render a talk as one text: the same ids as `encode` gives.

A space stands where a Llama tokenizer puts one before a segment. A system message takes the place
of `SYSTEM_PROMPT`. A person's words are not kept apart here: a typed "<image>" is a placeholder.
"""
Message = dict[str, str | bool]
"""{"role": "user" or "assistant", "content": text}; an answer may also be "open" or "given"."""


def encode(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, num_image_tokens: int
) -> tuple[list[int], list[int]]:
    """Return `input_ids` and `labels` of a conversation about one face.

    The face's K placeholders stand before the first question. Labels are the ids of the answers
    and of their `</s>`, `IGNORE_INDEX` elsewhere. A conversation that ends with a question ends
    with "ASSISTANT:", ready to be continued; one whose last answer has the key `"open": True`
    is left without `</s>`, to be continued too. An answer with `"given": True` is context: it is
    read, and not learned.

    Raises:
        ValueError: roles do not alternate starting with the user, or there is no message.
    """
    ids, labels = [tokenizer.bos_token_id], [IGNORE_INDEX]

    def add(tokens: list[int], supervised: bool) -> None:
        ids.extend(tokens)
        labels.extend(tokens if supervised else [IGNORE_INDEX] * len(tokens))

    def words(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    if not messages:
        raise ValueError("A conversation needs at least one message.")
    for turn, message in enumerate(messages):
        expected = "user" if turn % 2 == 0 else "assistant"
        if message["role"] != expected:
            raise ValueError(
                f"Message {turn} is by {message['role']}; it must be the {expected}'s."
            )
        if turn == 0:
            add(words(f"{SYSTEM_PROMPT} USER: "), supervised=False)
            add([image_token_id] * num_image_tokens, supervised=False)
            add(words(f"\n{message['content']} ASSISTANT:"), supervised=False)
        elif expected == "user":
            add(words(f"USER: {message['content']} ASSISTANT:"), supervised=False)
        else:
            learned = not message.get("given")
            add(words(message["content"]), supervised=learned)
            if not message.get("open"):
                add([tokenizer.eos_token_id], supervised=learned)
    return ids, labels


def encode_caption(
    caption: str, tokenizer: PreTrainedTokenizerBase, num_image_tokens: int
) -> tuple[list[int], list[int]]:
    """Return `input_ids` and `labels` of a picture and its caption: LLaVA's "plain" layout.

    The picture's placeholders, the caption and a new line, without template or question; the
    caption and the new line are learned. Stage 1 trains on this.
    """
    image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    before = [tokenizer.bos_token_id] + [image_token_id] * num_image_tokens
    words = tokenizer(f"{caption}\n", add_special_tokens=False, split_special_tokens=True)
    learned = words["input_ids"]
    return before + learned, [IGNORE_INDEX] * len(before) + learned
