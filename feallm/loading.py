"""Open a FEALLM, whatever form it has, or start one from LLaVA-1.5.

| folder or hub id | what it is |
| --- | --- |
| `config.json` of type feallm | a whole FEALLM |
| `adapter_config.json` beside it | a trained FEALLM as a peft adapter of another model |
| `config.json` of type llava | LLaVA-1.5, to start from: only the LCA and the MPP are new |

Weights that are missing, or of another shape, are listed and nothing is loaded.
"""

from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors import SafetensorError
from transformers import AutoConfig, BitsAndBytesConfig, LlavaProcessor, PreTrainedConfig
from transformers.utils import ADAPTER_CONFIG_NAME, cached_file

from feallm import FEALLMConfig, FEALLMForConditionalGeneration, FEALLMProcessor

NOT_QUANTIZED = (
    *("model.lca", "model.mpp", "model.multi_modal_projector", "model.vision_tower"),
    "lm_head",
)
"""Kept as they are: what is small or trained. bitsandbytes wants the whole paths: short names skip
nothing, without a word."""
QUANTIZATIONS = ("nf4", "int8")
LISTED = 20
"""Weights at most that an error names of each kind; it counts the rest."""
AS_LLAVA = {"mpp_residual": "identity", "use_lca": False}
"""What makes a LLaVA that is opened to be asked exactly LLaVA: the MPP's fusion adds nothing before
it was trained, and there is no F_local, an untrained token in the language model's sight."""


class ModelError(RuntimeError):
    """A model that cannot be loaded; its text is a sentence that says why."""


def quantization_config(kind: str | None, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Return bitsandbytes' configuration of a kind in `QUANTIZATIONS`; None for none."""
    if kind is None:
        return None
    skipped = list(NOT_QUANTIZED)
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skipped,
    )


def load(
    name: str | Path, dtype: torch.dtype, quantization: str | None = None, **options
) -> tuple[FEALLMForConditionalGeneration, FEALLMProcessor]:
    """Return a model and its processor; for the arguments and errors see `load_model`."""
    model = load_model(name, dtype, quantization, **options)
    return model, processor_of(name, model.config)


def load_model(
    name: str | Path,
    dtype: torch.dtype,
    quantization: str | None = None,
    attention: str = "sdpa",
    device: torch.device | None = None,
    **changes,
) -> FEALLMForConditionalGeneration:
    """Return a model in ordinary memory, or where it is quantized.

    Args:
        name: a folder or hub id, see above.
        dtype: of the weights.
        quantization: of the language model, a kind in `QUANTIZATIONS`.
        attention: transformers' `attn_implementation`.
        device: where to quantize; it must hold the whole model. None leaves it to bitsandbytes.
        changes: fields of `FEALLMConfig` for a model started from LLaVA.

    Raises:
        ModelError: nothing there, another kind of model, or weights missing or of another shape.
    """
    try:
        adapter = adapter_of(name)
        base = adapter.base_model_name_or_path if adapter else name
        config = config_of(name, **changes)
        is_start = is_llava(base)
        model, info = FEALLMForConditionalGeneration.from_pretrained(
            base,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            quantization_config=quantization_config(quantization, dtype),
            device_map={"": device} if quantization and device else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # listed below; else only a log would name them
        )
        new = ("model.lca.", "model.mpp.") if is_start else ()
        missing = [k for k in sorted(info["missing_keys"]) if not k.startswith(new or "\0")]
        # a mismatched key comes with both its shapes
        _refuse_holes(base, missing, [str(k) for k in sorted(info["mismatched_keys"])])
        if adapter:
            model = _with_adapter(model, name, adapter)
            model = model.get_base_model() if quantization else model.merge_and_unload()
    except (OSError, ValueError, SafetensorError) as error:
        raise cannot_load(name, error) from error
    return model


def _with_adapter(
    model: FEALLMForConditionalGeneration, name: str | Path, adapter: PeftConfig
) -> PeftModel:
    # not PeftModel.from_pretrained: of what is missing it warns, or names the first
    model = PeftModel(model, adapter)
    there = load_peft_weights(str(name), device="cpu")
    wanted = get_peft_model_state_dict(model)
    missing = sorted(wanted.keys() - there.keys())
    both = sorted(wanted.keys() & there.keys())
    other = [
        f"{k} {tuple(there[k].shape)} for {tuple(wanted[k].shape)}"
        for k in both
        if there[k].shape != wanted[k].shape
    ]
    _refuse_holes(name, missing, other)
    set_peft_model_state_dict(model, there)
    return model


def _refuse_holes(name: str | Path, missing: list[str], mismatched: list[str]) -> None:
    holes = {"missing": missing, "of another shape": mismatched}
    listed = [
        f"{len(keys)} {kind}: {', '.join(keys[:LISTED])}{', ...' * (len(keys) > LISTED)}"
        for kind, keys in holes.items()
        if keys
    ]
    if listed:
        raise ModelError(f"The weights in {name} are incomplete. {'; '.join(listed)}")


def is_llava(name: str | Path) -> bool:
    """Tell whether a folder or hub id holds a plain LLaVA; where it does not exist, OSError."""
    return AutoConfig.from_pretrained(name).model_type == "llava"


def is_feallm(name: str | Path) -> bool:
    """Tell whether a folder or hub id holds a FEALLM, whole or as an adapter.

    Raises:
        ModelError: there is no model.
    """
    try:
        # read and not built: a model that brings its own code is none of ours
        fields, _ = PreTrainedConfig.get_config_dict(name)
        return bool(adapter_of(name)) or fields.get("model_type") == "feallm"
    except (OSError, ValueError) as error:
        raise cannot_load(name, error) from error


def adapter_of(name: str | Path) -> PeftConfig | None:
    """Return the configuration of a peft adapter, None where there is no adapter."""
    found = cached_file(
        name,
        ADAPTER_CONFIG_NAME,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return PeftConfig.from_pretrained(name) if found else None


def config_of(name: str | Path, **changes) -> FEALLMConfig:
    """Return the configuration; one of LLaVA becomes FEALLM's with the paper's LCA and MPP.

    Raises:
        ModelError: it is not there, or of another kind of model.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise cannot_load(name, error) from error
    if config.model_type == "feallm":
        return config
    if config.model_type != "llava":
        raise ModelError(f"{name} is a {config.model_type} model, not a FEALLM or a LLaVA.")
    fields = config.to_dict()
    for own in ("model_type", "architectures", "transformers_version"):
        fields.pop(own, None)
    return FEALLMConfig(**(fields | changes))


def processor_of(name: str | Path, config: FEALLMConfig) -> FEALLMProcessor:
    """Return the processor; from LLaVA's its pictures' normalisation and its tokenizer are kept.

    Raises:
        ModelError: it is not there.
    """
    try:
        if AutoConfig.from_pretrained(name).model_type == "feallm":
            return FEALLMProcessor.from_pretrained(name)
        theirs = LlavaProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise cannot_load(name, error) from error
    return FEALLMProcessor.for_config(config, theirs.image_processor, theirs.tokenizer)


def cannot_load(name: str | Path, error: Exception) -> ModelError:
    """Return the error that says in a sentence why a model does not open."""
    return ModelError(f"The model {name} cannot be loaded: {str(error).splitlines()[0]}")
