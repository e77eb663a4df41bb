"""Say what a node has, for `make doctor`: under torchrun also whether ranks reach each other."""

import os
import socket
from pathlib import Path

import torch
import torch.distributed as dist
import torchvision

from semisup import distributed, tables
from semisup.steps import run


def main(token: Path, found: Path) -> None:
    """Write what this rank sees in the folder ``found``. ``token``: a file of the login node."""
    ranks = distributed.this_rank()
    with distributed.joined(ranks):
        total = torch.ones(1, device=ranks.device)
        if ranks.num_ranks > 1:
            dist.all_reduce(total)
        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        values = {
            "host": socket.gethostname(),
            "token": token.read_text() if token.exists() else "",
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "works": len(torchvision.ops.nms(boxes, torch.ones(1), 0.5)) == 1,
            "gpus": torch.cuda.device_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            "ranks": int(total.item()),
        }
        tables.write_json(found / f"{ranks.rank}.json", values)


if __name__ == "__main__":
    run(main)
