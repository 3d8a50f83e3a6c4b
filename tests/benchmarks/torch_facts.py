"""Facts about `benchmarks/peers/torch_step.py`, as JSON. A script for a Python that has torch, and needs nothing else.

    python torch_facts.py < JOBS

Reads {"shapes": [job, ...], "crops": job, "step": job} and prints one line of JSON with the same keys; `test_torch_step.py`
compares them with the expected values.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks/peers"))

import torch
import torch_networks
import torch_step


def shapes(job):
    """Shapes of the kernels."""
    model = torch_networks.NETWORKS[job["network"]](**job["model"])
    return [list(p.shape) for p in model.parameters() if p.ndim > 1]


def crops(job):
    """The columns of one row of each cropped image; the stored image has its column numbers as pixels."""
    work = torch_step.Work(job)
    side = job["stored_size"]
    ramp = torch.arange(side, dtype=torch.uint8)[None, None, :, None]
    work.images = ramp.expand(job["batch_size"], side, side, 3).contiguous()
    return (work.images_of_batch()[:, 0, 0] * 255).round().int().tolist()


def changed(job):
    """For each parameter, whether a training step changes it."""
    work = torch_step.Work(job)
    before = [p.detach().clone() for p in work.model.parameters()]
    work.step(compiled=False)
    return [bool((p != q).any()) for p, q in zip(work.model.parameters(), before, strict=True)]


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    facts = {
        "shapes": [shapes(job) for job in asked["shapes"]],
        "crops": crops(asked["crops"]),
        "step": changed(asked["step"]),
    }
    print(json.dumps(facts))
