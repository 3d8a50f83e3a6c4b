"""The PyTorch side does the work that ours does. Only where PyTorch is installed, which no test environment needs."""

import pytest

torch = pytest.importorskip("torch")

from small_run import small_config  # noqa: E402

from benchmarks import peer, roofline  # noqa: E402
from benchmarks.peers import torch_step  # noqa: E402
from openset_jax import build  # noqa: E402

# PyTorch's own compiler imports what PyTorch has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize(("stem", "size"), [("small", 16), ("imagenet", 224), ("imagenet", 96)])
def test_it_has_as_many_weights_as_ours(stem, size, norm):
    fields = {"model.stem": stem, "model.norm": norm, "data.image_size": size, "data.stored_size": size}
    config = small_config(**fields)
    ours = [layer.kernel for layer in roofline.layers(build.make_model(config, 5), size) if layer.kernel]
    theirs = torch_step.AlexNet(**peer.network_job(config, 6, "train")["model"])
    shapes = [p.shape for p in theirs.parameters() if p.ndim > 1]
    assert [sorted(shape) for shape in ours] == [sorted(shape) for shape in shapes]


def test_crops_lie_within_the_image_and_half_of_them_are_mirrored():
    job = peer.network_job(small_config(**{"augment.pad": 0, "augment.flip": True, "data.stored_size": 20}), 6, "train")
    work = torch_step.Work(job | {"batch_size": 400, "mean": [0.0] * 3, "std": [1.0] * 3})
    ramp = torch.arange(20, dtype=torch.uint8)[None, None, :, None]
    work.images = ramp.expand(400, 20, 20, 3).contiguous()
    columns = (work.images_of_batch()[:, 0, 0] * 255).round().int()
    steps = columns.diff(dim=1)
    assert (steps.abs() == 1).all()
    assert 0.4 < (steps[:, 0] == -1).float().mean() < 0.6
    assert set(columns.amin(1).tolist()) == set(range(5))


def test_a_step_changes_the_parameters():
    work = torch_step.Work(peer.network_job(small_config(), 6, "train"))
    before = [p.detach().clone() for p in work.model.parameters()]
    work.step(compiled=False)
    assert any((p != q).any() for p, q in zip(work.model.parameters(), before, strict=True))
