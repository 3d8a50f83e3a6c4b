"""The bare loop of `benchmarks.pipeline`: decodes the same files with libjpeg-turbo, in threads on all cores.

Started by `benchmarks.peer`. It measures the least cost of decoding: without an order, without batches, without
handling of unreadable files. simplejpeg (libjpeg-turbo) decodes with the reduction that the pipeline uses; Pillow
scales the centre square if its side is not the wanted one, antialiased bilinear like the pipeline. Both release the
GIL. The script imports only these and NumPy. It reads and answers the JSON lines of `torch_loader.py`; it answers
{"sample": n} with the first n images, to compare pixels.
"""

import base64
import itertools
import json
import sys
import threading
import time

try:
    import numpy as np
    import PIL
    import simplejpeg
    from PIL import Image
except ImportError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()


def read_square(path: str, out: np.ndarray) -> None:
    """Decodes the centre square of a file, scaled, into `out`, uint8 [size, size, 3]."""
    with open(path, "rb") as file:
        content = file.read()
    size = len(out)
    height, width, *_ = simplejpeg.decode_jpeg_header(content)
    factor = max(f for f in (1, 2, 4, 8) if f == 1 or min(height, width) // f >= size)
    reduced = {"min_height": -(-height // factor), "min_width": -(-width // factor), "min_factor": factor}
    image = simplejpeg.decode_jpeg(content, **(reduced if factor > 1 else {}))
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side != size:
        square = Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR)
    out[:] = square


def measure(paths: list[str], size: int, workers: int, warmup: float, seconds: float) -> dict:
    """Measures the steady state; returns the number of "images" and their "seconds"."""
    counts, start = [0] * workers, time.perf_counter() + warmup

    def work(worker):
        out = np.zeros((32, size, size, 3), np.uint8)
        for i in itertools.count():
            if (now := time.perf_counter()) >= start + seconds:
                return
            read_square(paths[(i * workers + worker) % len(paths)], out[i % len(out)])
            counts[worker] += now >= start

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"images": sum(counts), "seconds": time.perf_counter() - start}


def sample(paths: list[str], size: int) -> dict:
    """Decodes all paths; returns "images", uint8 [n, size, size, 3] in base64."""
    images = np.zeros((len(paths), size, size, 3), np.uint8)
    for path, image in zip(paths, images, strict=True):
        read_square(path, image)
    return {"images": base64.b64encode(images.tobytes()).decode()}


def main() -> None:
    """Answers the lines of standard input."""
    job = json.loads(sys.stdin.readline())
    paths = [path for path, _ in job["files"]]
    versions = {"simplejpeg": simplejpeg.__version__, "pillow": PIL.__version__, "numpy": np.__version__}
    print(json.dumps(versions | {"python": sys.version.split()[0]}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "sample" in asked:
            answer = sample(paths[: asked["sample"]], job["size"])
        else:
            answer = measure(paths, job["size"], job["workers"], **asked)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
