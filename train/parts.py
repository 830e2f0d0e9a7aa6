"""What a stage trains: named modules at their own learning rates, and LoRA in the language model.

LoRA goes into the language model alone, whatever its layers are called: CLIP's are named
`q_proj`, `k_proj` and `v_proj` too, and a list of names would adapt the tower as well.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file
from torch import nn


class StageError(ValueError):
    """A stage that cannot be run as it is described; its text is a sentence for a person."""


TRAINED_WHOLE = ("lca", "mpp", "multi_modal_projector")
"""Modules that an adapter holds whole, beside LoRA's matrices."""
PREFIX = "base_model.model."
"""What peft puts before every name of an adapter."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """LoRA in every linear layer of the language model; the paper gives the rank alone."""

    learning_rate: float
    """LLaVA's: 2e-4."""
    rank: int = 128
    """The paper's."""
    alpha: int = 256
    """LLaVA's."""
    dropout: float = 0.05
    """LLaVA's."""

    def peft_config(self, targets: list[str]) -> LoraConfig:
        return LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets
        )


def add_lora(language_model: nn.Module, lora: Lora) -> list[nn.Parameter]:
    """Put LoRA into a language model, in place; return its parameters. Its head is left alone."""
    linear = [n for n, m in language_model.named_modules() if isinstance(m, nn.Linear)]
    inject_adapter_in_model(lora.peft_config(linear), language_model)
    return [p for n, p in language_model.named_parameters() if ".lora_" in n]


def choose_trainable(
    model: nn.Module, learning_rates: dict[str, float], lora: Lora | None = None
) -> list[dict]:
    """Freeze all but the named modules and LoRA; return AdamW's parameter groups, each named.

    What is trained becomes fp32: bf16 loses updates at these learning rates.

    Raises:
        StageError: a path names no module, or nothing would be trained.
    """
    model.requires_grad_(False)
    keep_gradients(model)
    groups, taken = [], set()
    # the longest path wins, so that "model" can be refined by "model.lca"
    for path in sorted(learning_rates, key=len, reverse=True):
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise StageError(f"learning_rates names {path}, which this model has not.") from None
        mine = [p for p in module.parameters() if id(p) not in taken]
        taken |= {id(p) for p in mine}
        if mine:
            groups.append({"params": mine, "lr": learning_rates[path], "name": path})
    if lora:
        mine = add_lora(model.get_submodule("model.language_model"), lora)
        groups.append({"params": mine, "lr": lora.learning_rate, "name": "LoRA"})
        model._hf_peft_config_loaded = True  # so transformers knows that quantized weights rest
    if not groups:
        raise StageError("Nothing would be trained: learning_rates is empty.")
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
        count = sum(p.numel() for p in group["params"])
        print(f"trains {group['name']}: {count:,} parameters at {group['lr']}")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if trained != sum(p.numel() for g in groups for p in g["params"]):
        raise AssertionError("What requires gradients is not what the optimizer was given.")
    return groups


def keep_gradients(model: nn.Module) -> None:
    """Keep NF4 weights in the layout that has gradients, also when the model answers, in place.

    On CPUs with AVX512-BF16 bitsandbytes lays a weight out anew at the first answer (a forward pass
    in eval mode). From then on no gradient passes it, without a word: a sample written in between
    would end the learning of all layers before it.

    Raises:
        StageError: the model has answered already.
    """
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            if getattr(module.weight.quant_state, "packing_format_for_cpu", False):
                raise StageError(f"{name} was laid out for answering: load the model again.")
            module.support_avx512bf16_for_cpu = False


def save_adapter(state: dict[str, torch.Tensor], lora: Lora, base: str, folder: Path) -> None:
    """Write what was trained as a peft adapter of `base`: LoRA, and the eyes' modules whole.

    Args:
        state: the whole model's state dict.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept, modules = {}, set()
    for name, parameter in state.items():
        module = name.removeprefix("model.").split(".")[0]
        if module in TRAINED_WHOLE or ".lora_" in name:
            kept[PREFIX + name.replace(".default.", ".")] = parameter.contiguous().cpu()
            modules.add(module)
    save_file(kept, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    linear = {n for n in kept if ".lora_A." in n}
    targets = sorted(n.removeprefix(PREFIX).split(".lora_A.")[0] for n in linear)
    config = lora.peft_config(targets)
    config.base_model_name_or_path = base
    config.modules_to_save = [m for m in TRAINED_WHOLE if m in modules]
    config.inference_mode = True
    config.save_pretrained(folder)
    _shorten(folder / "adapter_config.json", targets)


def _shorten(path: Path, targets: list[str]) -> None:
    """Say what hundreds of names have in common: the language model's linear layers."""
    written = json.loads(path.read_text("utf-8"))
    kinds = "|".join(sorted({t.rsplit(".", 1)[1] for t in targets}))
    written["target_modules"] = rf".*\.language_model\..*\.({kinds})"
    path.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
