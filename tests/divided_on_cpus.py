"""`train.train` under FSDP or DeepSpeed on CPUs: `accelerate launch ... tests/divided_on_cpus.py`.

accelerate gives CPU processes DDP where FSDP is asked, without a word. Here it takes them for GPUs;
the division itself is torch's and runs over gloo as well. DeepSpeed takes CPUs for what they are.
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
