"""A FEALLM behind transformers' own server, which speaks OpenAI's protocol.

Run as (it needs `pip install "transformers[serving]"`):

    python -m feallm.serve assets/feallm-mini --port 8000

Everything after the module's name is `transformers serve`'s. The model is a whole FEALLM, merged if
it was an adapter. The server cuts no face out: a picture it is sent must be an aligned face
(`feallm.faces.align_face`), and the answer is what the model writes freely, without the
probabilities of the page. A picture named by an address is fetched by the server.
"""

import sys

from transformers import AutoModelForMultimodalLM
from transformers.cli.transformers import main as transformers_cli
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

from feallm import FEALLMConfig, FEALLMForConditionalGeneration


def main() -> None:
    AutoModelForMultimodalLM.register(FEALLMConfig, FEALLMForConditionalGeneration, exist_ok=True)
    # the server looks into this table of names, and registering does not add to it
    name = FEALLMForConditionalGeneration.__name__
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[FEALLMConfig.model_type] = name
    sys.argv[:1] = ["transformers", "serve"]
    transformers_cli()


if __name__ == "__main__":
    main()
