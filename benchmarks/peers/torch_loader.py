"""The PyTorch side of `benchmarks.pipeline`: a `DataLoader` over the same files, decoded and scaled by PIL.

Started by `benchmarks.peer`. It imports only torch, PIL and NumPy, so that its environment does not need this package.
It reads image folders as PyTorch's own examples do, with persistent worker processes. It communicates in JSON lines: it
reads {"files": [[path, label], ...], "batch_size", "size", "workers"} and answers with its versions; then it measures a
round for each {"warmup", "seconds"} and answers {"images", "seconds"}. Between rounds it is idle. If it cannot run, it
answers {"error"}.
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
    """Images (uint8 [size, size, 3], label): the shorter side is scaled to `size`, and the centre square is cut."""

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
    """Random permutations of all images, one after another, until `stopped`. Has no pauses between epochs."""

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
    """Measures the steady state; returns the number of "images" and their "seconds"."""
    batches, count = iter(loader), 0
    start = time.perf_counter()
    # workers finish together, and batches come in bursts of one for each worker: count whole bursts
    while count % loader.num_workers or time.perf_counter() - start < warmup:
        next(batches)
        count += 1
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or count % loader.num_workers:
        next(batches)
        count += 1
    sampler.stopped = True
    for _ in batches:  # the workers must be idle while the other side is measured
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
