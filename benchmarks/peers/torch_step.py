"""The PyTorch side of `benchmarks.step` and `benchmarks.evaluate`: the same network and the same work, in usual PyTorch.

Started by `benchmarks.peer`. It imports only torch, so that its environment does not need this package. The networks are
those of `torch_networks`, in channels_last. uint8 images on the device are cropped, flipped and normalised there. Mode
"train" then has dropout, cross entropy, the backward pass, clipping by global norm and a fused AdamW; mode "eval" has
the logits. bfloat16 means autocast; float32 may be TF32, as in JAX. The step is tried with and without `torch.compile`,
and the faster of both is measured; the first answer has both times, or the reason why there is no compiled step.

It communicates in JSON lines: it reads a job (see `Work`) and answers with its versions; then it measures a round for
each {"steps"} and answers {"images", "seconds"}. Between rounds it is idle. If it cannot run, it answers {"error"}.
"""

import contextlib
import json
import os
import sys
import time

try:
    import torch
    import torch_networks
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()


class Work:
    """One step of training, or of evaluation, on one random batch.

    Args:
      job: "mode" ("train" or "eval"), "device" ("cpu" or "cuda"), "dtype" ("float32" or "bfloat16"), "batch_size",
        "stored_size", "image_size", "mean", "std", "grey", "pad", "flip", "network" (its name), "model" (its
        arguments), "optimizer" ("learning_rate", "b1", "b2", "eps", "weight_decay", "grad_clip").
    """

    def __init__(self, job: dict):
        self.job, self.device = job, job["device"]
        torch.manual_seed(0)
        self.model = torch_networks.NETWORKS[job["network"]](**job["model"]).to(
            self.device, memory_format=torch.channels_last
        )
        self.model.train(job["mode"] == "train")
        size, side = job["batch_size"], job["stored_size"]
        self.images = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, device=self.device)
        self.labels = torch.randint(0, job["model"]["num_outputs"], (size,), device=self.device)
        self.mean, self.std = (torch.tensor(job[k], device=self.device) for k in ("mean", "std"))
        self.luma = torch.tensor((0.299, 0.587, 0.114), device=self.device)
        options = job["optimizer"]
        parameters = list(self.model.parameters())
        groups = [  # weight decay for kernels only, as in openset_jax
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options["weight_decay"]},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=options["learning_rate"], betas=(options["b1"], options["b2"]), eps=options["eps"], fused=True
        )
        self.compiled = torch.compile(self.forward)

    def images_of_batch(self) -> torch.Tensor:
        """Crops, mirrors and normalises the images: uint8 [b, S, S, 3] -> float32 [b, 3, s, s], channels last."""
        size, pad, train = self.job["image_size"], self.job["pad"], self.job["mode"] == "train"
        images, batch = self.images, len(self.images)
        if train and pad:
            images = F.pad(images, (0, 0, pad, pad, pad, pad))
        slack = images.shape[1] - size
        if train:
            along = torch.arange(size, device=self.device)
            top, left = torch.randint(0, slack + 1, (2, batch, 1), device=self.device)
            rows, columns = top + along, left + along
            if self.job["flip"]:
                mirrored = torch.rand(batch, 1, device=self.device) < 0.5
                columns = torch.where(mirrored, left + size - 1 - along, columns)
            numbers = torch.arange(batch, device=self.device)[:, None, None]
            images = images[numbers, rows[:, :, None], columns[:, None, :]]
        else:
            start = slack // 2
            images = images[:, start : start + size, start : start + size]
        x = images.float()
        if self.job["grey"]:
            x = (x * self.luma).sum(-1, keepdim=True).expand(-1, -1, -1, 3)
        return ((x / 255 - self.mean) / self.std).permute(0, 3, 1, 2)

    def forward(self) -> tuple:
        """(mean loss, accuracy, share of predictions of each class), or (logits,) in mode "eval"."""
        low = self.job["dtype"] == "bfloat16"
        with torch.autocast(self.device, torch.bfloat16) if low else contextlib.nullcontext():
            logits = self.model(self.images_of_batch()).float()
        if self.job["mode"] == "eval":
            return (logits,)
        answers = logits.argmax(-1)
        shares = F.one_hot(answers, logits.shape[-1]).float().mean(0)
        return F.cross_entropy(logits, self.labels), (answers == self.labels).float().mean(), shares

    def step(self, *, compiled: bool) -> None:
        """Dispatches one step."""
        forward = self.compiled if compiled else self.forward
        if self.job["mode"] == "eval":
            with torch.inference_mode():
                forward()
            return
        loss, *_ = forward()
        loss.backward()
        if clip := self.job["optimizer"]["grad_clip"]:
            nn.utils.clip_grad_norm_(self.model.parameters(), clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def seconds(self, steps: int, *, compiled: bool) -> float:
        """Seconds of steps that are dispatched one after another, from an idle device until it is idle again."""
        self.wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.step(compiled=compiled)
        self.wait()
        return time.perf_counter() - start

    def wait(self) -> None:
        """Waits until the device is idle."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def choose(self) -> dict:
        """Warms up, and compares the compiled step with the plain one.

        Returns:
          "compiled" (True if it is faster), "plain_ms", "compiled_ms", "compile_s" and "compile_error".
        """
        result = {"compiled": False, "plain_ms": 0.0, "compiled_ms": None, "compile_s": None, "compile_error": None}
        self.seconds(2, compiled=False)
        try:
            result["compile_s"] = round(self.seconds(1, compiled=True), 1)
            self.seconds(1, compiled=True)
        except Exception as error:  # no compiler, or one that fails; the answer has the reason
            result["compile_error"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        ways = (False, True) if result["compile_error"] is None else (False,)
        steps = max(1, round(0.3 / self.seconds(1, compiled=False)))
        rounds = {way: [] for way in ways}
        for i in range(3):
            for way in ways[:: -1 if i % 2 else 1]:
                rounds[way].append(1e3 * self.seconds(steps, compiled=way) / steps)
        medians = {way: round(sorted(values)[1], 3) for way, values in rounds.items()}
        faster = min(medians, key=medians.get)
        return result | {"compiled": faster, "plain_ms": medians[False], "compiled_ms": medians.get(True)}


def main() -> None:
    """Answers the lines of standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # compilers may print to standard output, which has only answers
    answer = lambda message: print(json.dumps(message), file=answers, flush=True)
    job = json.loads(sys.stdin.readline())
    if job["device"] == "cuda" and not torch.cuda.is_available():
        answer({"error": f"torch {torch.__version__} finds no CUDA device, and JAX runs on one"})
        return
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    work = Work(job)
    chosen = work.choose()
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    device = torch.cuda.get_device_name() if job["device"] == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    answer(versions | {"device": device, "parameters": sum(p.numel() for p in work.model.parameters())} | chosen)
    for line in sys.stdin:
        steps = json.loads(line)["steps"]
        seconds = work.seconds(steps, compiled=chosen["compiled"])
        answer({"images": steps * job["batch_size"], "seconds": seconds})


if __name__ == "__main__":
    main()
