"""A FEALLM behind vLLM, by its transformers backend.

Run as, in an environment of vLLM's own (its transformers is older than ours):

    python -m feallm.serve_vllm assets/feallm-mini --port 8000

Everything after the module's name is `vllm serve`'s. What `feallm.serve` says of faces, answers
and addresses is true here too.
"""

import sys

from vllm.entrypoints.cli.main import main as vllm_cli
from vllm.model_executor.models.registry import transformers  # not the one that we import

from feallm import FEALLMForConditionalGeneration

# vLLM looks an architecture up among transformers' names. Its engine, a process of its own, may
# begin by importing this module: hence here and not in main
transformers.FEALLMForConditionalGeneration = FEALLMForConditionalGeneration


def main() -> None:
    sys.argv[:1] = ["vllm", "serve"]
    sys.argv += ["--model-impl", "transformers"]
    vllm_cli()


if __name__ == "__main__":
    main()
