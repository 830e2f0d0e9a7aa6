"""`train.train` under FSDP on CPUs: `accelerate launch ... tests/fsdp_on_cpus.py` and its options.

accelerate divides a model among GPUs only: to CPU processes it gives DDP, without a word. Here it
takes them for GPUs; the division itself is torch's and runs over gloo as well.
"""

from accelerate.state import DistributedType, PartialState

from train.train import main

start = PartialState.__init__


def start_as_gpus(self, *args, **kwargs) -> None:
    start(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState.__init__ = start_as_gpus
    main()
