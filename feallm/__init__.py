"""FEALLM: facial emotion analysis with a multimodal language model (arXiv 2505.13419).

Importing this package does no work. Its public names are loaded when they are first used, and
loading the model's classes registers them with transformers' Auto classes.
"""

__version__ = "0.1.0"
__all__ = [
    "FEALLMConfig",
    "FEALLMForConditionalGeneration",
    "FEALLMModel",
    "FEALLMProcessor",
    "Predictor",
]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'feallm' has no attribute {name!r}")
    if name == "Predictor":
        from feallm.predictor import Predictor

        return Predictor
    from feallm import configuration, modeling, processing

    modeling.register()
    processing.register()
    homes = {"FEALLMConfig": configuration, "FEALLMProcessor": processing}
    return getattr(homes.get(name, modeling), name)
