"""The PyTorch side of `benchmarks.pipeline`: a `DataLoader` over the same files, decoded and scaled by PIL.

Not to be run by hand. It imports torch, PIL and NumPy only, so that it runs in an environment where nothing of ours is
installed. It is the way PyTorch's own examples read image folders, with worker processes that stay alive. It speaks JSON
lines: first it reads {"files": [[path, label], ...], "batch_size", "size", "workers"} and answers with its versions; then
for each {"warmup", "seconds"} it measures one round and answers {"images", "seconds"}. Between rounds it is idle. Where it
cannot run it says {"error"}.
"""

import json
import sys
import time

try:
    import numpy as np
    import PIL
    import torch
    from PIL import Image
except ImportError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()


class Photos(torch.utils.data.Dataset):
    """(uint8 [size, size, 3], label): the shorter side is scaled to `size`, and the centre square cut."""

    def __init__(self, files: list, size: int):
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[i]
        with Image.open(path) as file:
            image = file.convert("RGB")
        scale = self.size / min(image.size)
        width, height = (max(round(n * scale), self.size) for n in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        image = image.crop((left, top, left + self.size, top + self.size))
        return torch.from_numpy(np.array(image)), label


class Shuffled(torch.utils.data.Sampler):
    """One random order of all images after another, until told to stop: no pauses between epochs, which favours the peer."""

    def __init__(self, count: int):
        self.count, self.stopped = count, False

    def __iter__(self):
        self.stopped = False
        while not self.stopped:
            for i in torch.randperm(self.count).tolist():
                if self.stopped:
                    return
                yield i


def measure(loader: torch.utils.data.DataLoader, sampler: Shuffled, warmup: float, seconds: float) -> dict:
    """Images, and the seconds they took, in the steady state."""
    batches, count = iter(loader), 0
    start = time.perf_counter()
    # workers finish together, so that batches come in bursts of as many: count whole bursts
    while count % loader.num_workers or time.perf_counter() - start < warmup:
        next(batches)
        count += 1
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or count % loader.num_workers:
        next(batches)
        count += 1
    sampler.stopped = True
    for _ in batches:  # what the workers had begun: they must be idle when the other side is measured
        pass
    return {"images": count * loader.batch_size, "seconds": elapsed}


def main() -> None:
    """Answers the lines of standard input."""
    job = json.loads(sys.stdin.readline())
    sampler = Shuffled(len(job["files"]))
    loader = torch.utils.data.DataLoader(
        Photos(job["files"], job["size"]),
        batch_size=job["batch_size"],
        sampler=sampler,
        num_workers=job["workers"],
        persistent_workers=True,
        drop_last=True,
    )
    versions = {"torch": torch.__version__, "pillow": PIL.__version__, "numpy": np.__version__}
    print(json.dumps(versions | {"python": sys.version.split()[0]}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(loader, sampler, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
