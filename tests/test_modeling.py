"""The whole model: starting values, what trains, cached generation, saving, LLaVA's weights."""

import pytest
import torch
from conftest import tiny_config, tiny_inputs, tiny_model
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from feallm import FEALLMConfig, FEALLMForConditionalGeneration


def test_hidden_state_k_is_the_output_of_layer_k_minus_1():
    model = tiny_model()
    tower, outputs = model.model.vision_tower, []
    layers = [
        m for n, m in tower.named_modules() if n.endswith(tuple(f"layers.{i}" for i in range(4)))
    ]
    for layer in layers:
        layer.register_forward_hook(
            lambda m, i, o: outputs.append(o[0] if isinstance(o, tuple) else o)
        )
    inputs = tiny_inputs(model.config)
    hidden = tower(inputs["pixel_values"], output_hidden_states=True).hidden_states
    assert len(hidden) == 5
    for k in range(1, 5):
        torch.testing.assert_close(hidden[k], outputs[k - 1])
    deep = model.model.fuse(inputs["pixel_values"], inputs["pixel_values_local"])["deep"]
    torch.testing.assert_close(deep, outputs[2][:, 1:])  # -2 of five is the third layer's


def test_starting_values():
    model = tiny_model(lca_crop_embedding=True).model
    assert model.mpp.scale_local.abs().max() == 0
    assert model.mpp.scale_self.abs().max() == 0
    torch.testing.assert_close(model.lca.query.weight, torch.eye(16))
    star = model.mpp.local_attention.sampling_offsets
    torch.testing.assert_close(star.bias, star.starting_bias())
    assert star.weight.abs().max() == 0
    first = model.lca.stages[0].reduce.weight  # Kaiming: sqrt(2 / (16 * 9)) = 0.118
    assert 0.09 < first.std() < 0.15
    assert 0.5 < model.lca.crop_embedding.std() / (3 / 4) ** 0.5 < 1.5


def test_no_parameter_is_named_gamma_or_beta():
    assert not [n for n, _ in tiny_model().named_parameters() if "gamma" in n or "beta" in n]


def test_a_frozen_parameter_stays_and_a_trainable_one_moves():
    from train.parts import choose_trainable

    model = tiny_model().train()
    groups = choose_trainable(model, {"model.lca": 1e-2, "model.mpp": 1e-3})
    assert {g["lr"] for g in groups} == {1e-2, 1e-3}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    inputs = tiny_inputs(model.config)
    optimizer = torch.optim.AdamW(groups)
    for _ in range(2):  # scale_local starts at 0: what is behind it moves in the second step
        model(**inputs, labels=inputs["input_ids"].clone()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in model.named_parameters():
        ours = name.startswith(("model.lca", "model.mpp"))
        assert parameter.requires_grad == ours
        if not ours:
            torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)
    assert not torch.equal(model.model.lca.to_token.weight, before["model.lca.to_token.weight"])
    assert not torch.equal(model.model.mpp.clue_proj.weight, before["model.mpp.clue_proj.weight"])


def test_training_nothing_or_something_unknown_is_refused():
    from train.parts import choose_trainable

    with pytest.raises(ValueError, match="has not"):
        choose_trainable(tiny_model(), {"model.lcaa": 1e-3})
    with pytest.raises(ValueError, match="Nothing"):
        choose_trainable(tiny_model(), {})


def test_cached_generation_equals_uncached():
    model = tiny_model()
    inputs = tiny_inputs(model.config)
    cached = model.generate(**inputs, max_new_tokens=8, do_sample=False, use_cache=True)
    ids = inputs["input_ids"]
    for _ in range(8):
        logits = model(**(inputs | {"input_ids": ids})).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        if ids[0, -1] == 2:
            break
    assert cached[0].tolist() == ids[0, : cached.shape[1]].tolist()


def test_the_local_token_comes_after_the_patches():
    model = tiny_model()
    inputs = tiny_inputs(model.config)
    pixels, crops = inputs["pixel_values"], inputs["pixel_values_local"]
    tokens = model.get_image_features(pixels, crops).pooler_output[0]
    fused = model.model.fuse(pixels, crops)
    assert tokens.shape == (17, 48)
    torch.testing.assert_close(tokens[16], fused["token"][0, 0])
    torch.testing.assert_close(tokens[:16], model.model.multi_modal_projector(fused["features"])[0])


def test_save_and_load_round_trip(tmp_path):
    model = tiny_model(mpp_residual="identity", lca_crop_embedding=True)
    for name, parameter in model.named_parameters():
        if "scale_" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    again, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(again, FEALLMForConditionalGeneration)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), FEALLMConfig)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    inputs = tiny_inputs(model.config)
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("layout", ["5.23", "4.52", "hub"])
def test_warm_start_from_llava(tmp_path, layout):
    """LLaVA's three published layouts: nothing unexpected, only the LCA and the MPP are missing."""
    config = tiny_config()
    llava_config = LlavaConfig(
        vision_config=config.vision_config, text_config=config.text_config, image_token_index=3
    )
    llava = LlavaForConditionalGeneration(llava_config).eval()
    llava.save_pretrained(tmp_path)
    if layout != "5.23":
        state = {}
        for name, value in llava.state_dict().items():
            if layout == "hub":  # llava-hf/llava-1.5-7b-hf: everything of the LLM in language_model
                name = name.replace("model.language_model.", "language_model.model.")
                name = name.replace("lm_head.", "language_model.lm_head.")
                name = name.replace("model.vision_tower.", "vision_tower.vision_model.")
                name = name.replace("model.multi_modal_projector.", "multi_modal_projector.")
            else:  # transformers 4.52 kept CLIP's inner name
                name = name.replace("model.vision_tower.", "model.vision_tower.vision_model.")
            state[name.replace("vision_model.vision_model.", "vision_model.")] = value.clone()
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, info = FEALLMForConditionalGeneration.from_pretrained(
        tmp_path, config=tiny_config(mpp_residual="identity"), output_loading_info=True
    )
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert {k.split(".")[1] for k in info["missing_keys"]} == {"lca", "mpp"}
    loaded = dict(model.state_dict())
    for name, value in llava.state_dict().items():
        torch.testing.assert_close(loaded[name], value, rtol=0, atol=0)
    # in identity mode the patches' tokens are LLaVA's own
    pixels = torch.randn(1, 3, 32, 32)
    crops = torch.randn(1, 16, 3, 16, 16)
    theirs = llava.get_image_features(pixels).pooler_output[0]
    torch.testing.assert_close(
        model.eval().get_image_features(pixels, crops).pooler_output[0][:16], theirs
    )


def test_a_mismatch_of_image_tokens_raises():
    model = tiny_model()
    inputs = tiny_inputs(model.config)
    inputs["input_ids"] = inputs["input_ids"][:, [0, 1, *range(3, 22)]]  # one placeholder fewer
    with pytest.raises(ValueError, match="do not match"):
        model(**inputs)


def test_missing_local_crops_raise():
    model = tiny_model()
    inputs = tiny_inputs(model.config)
    del inputs["pixel_values_local"]
    with pytest.raises(ValueError, match="local crops"):
        model(**inputs)


def test_lora_wraps_the_language_model_alone():
    from peft import LoraConfig, get_peft_model

    model = tiny_model()
    lora = LoraConfig(
        r=4,
        target_modules=r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj",
        modules_to_save=["lca", "mpp", "multi_modal_projector"],
    )
    wrapped = get_peft_model(model, lora)
    trained = [n for n, p in wrapped.named_parameters() if p.requires_grad]
    assert any("language_model" in n and "lora_A" in n for n in trained)
    assert not [n for n in trained if "vision_tower" in n]
    assert any(".lca." in n for n in trained) and any(".mpp." in n for n in trained)
    inputs = tiny_inputs(model.config)
    merged = wrapped.merge_and_unload().eval()
    assert merged(**inputs).logits.shape[-1] == 64


def test_attention_of_the_lca_is_returned():
    model = tiny_model()
    inputs = tiny_inputs(model.config, batch=2)
    out = model.get_image_features(inputs["pixel_values"], inputs["pixel_values_local"])
    assert out.attentions.shape == (2, 16, 16)


def test_eyes_read_again_have_the_gradients_of_eyes_kept():
    """With dropout: what is read again must be dropped again."""
    model = tiny_model(lca_dropout=0.5).train()
    for scale in (model.model.mpp.scale_local, model.model.mpp.scale_self):
        torch.nn.init.ones_(scale)
    inputs = tiny_inputs(model.config)
    gradients = []
    for _ in range(2):
        model.zero_grad()
        torch.manual_seed(0)
        model(**inputs).logits.square().mean().backward()
        eyes = (model.model.lca, model.model.mpp)
        gradients.append({p: p.grad.clone() for part in eyes for p in part.parameters()})
        model.activation_checkpointing_enable()
    assert model.model.lca.gradient_checkpointing and model.model.mpp.gradient_checkpointing
    assert gradients[0][model.model.lca.stages[0].reduce.weight].abs().max() > 0
    for parameter, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][parameter], gradient)
