"""Images per second on many devices, calculated from the step time of one device. Measures nothing.

    python -m benchmarks.scaling --step_ms=17.1 --batch_size=1024

Why: the rate of a larger machine follows from three numbers: the step time of one device, the bytes of gradients that
all devices sum, and the speed of the links between them. The calculation takes the peak speed of the links, so the
tables give an upper bound. NVLink joins the devices of a host; one Ethernet port for each host joins the hosts.

Ring all-reduce (Patarasuk and Yuan 2009): each of n devices sends 2 (n - 1) / n x bytes. Over h hosts of d devices: a
reduce-scatter in each host, an all-reduce of the parts between hosts, an all-gather in each host; so NVLink carries
2 (d - 1) / d x bytes for each device, and each Ethernet port 2 (h - 1) / h x bytes.

Overlap: the fully connected layers have 96 % of the gradients, and the backward pass computes them first, so that they
are summed during the rest of the backward pass, two thirds of the step: step = max(step, step / 3 + all-reduce).
Without overlap: step + all-reduce.

"One weird trick" (Krizhevsky 2014, arXiv 1404.5997): fc6 and fc7 are sharded over the n devices of a group, the convolutions
replicated. Then each device sends 2 (n - 1) / n x the bytes of the other gradients, and for each of its b images 2 (n - 1) x
(inputs of fc6 + outputs of fc7): values and their gradients, for which the network waits.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks import outputs, tables
from openset_jax import cli
from openset_jax.errors import UserError

NVLINK, ETHERNET = 450e9, 100e9 / 8  # bytes/s in each direction: NVLink 4 of an H100 or H200; one port of 100 Gb/s
PER_HOST = 8
DEVICES = (1, 8, 64, 512)
BATCH_SIZES = (32, 128, 512, 1024, 4096)
# of AlexNet with 11 outputs: fc6 and fc7 with their biases, everything else, inputs of fc6 plus outputs of fc7
SHARDED, REPLICATED, EXCHANGED = 9216 * 4096 + 4096 + 4096 * 4096 + 4096, 2_514_763, 9216 + 4096
FORWARD_SHARE = 1 / 3  # of a step


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_float("step_ms", None, "Milliseconds of the step of one device.", required=True, lower_bound=1e-6)
    flags.DEFINE_integer("batch_size", 1024, "Images of that step.", lower_bound=1)
    flags.DEFINE_float("fixed_ms", 0.5, "The part of it that does not depend on the batch: the update.", lower_bound=0.0)
    flags.DEFINE_integer("global_batch", 8192, "Batch of all devices in the table of strong scaling.", lower_bound=1)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    args, file = flags.FLAGS, outputs.json_file(flags.FLAGS.json)
    if args.fixed_ms >= args.step_ms:
        raise UserError(f"--fixed_ms: {args.fixed_ms:g} is a part of --step_ms, {args.step_ms:g}")
    device = Device(args.step_ms, args.batch_size, args.fixed_ms)
    print(f"Calculated from a step of {args.step_ms:g} ms with {args.batch_size} images on one device.")
    result: dict[str, Any] = {"step_ms": args.step_ms, "batch_size": args.batch_size, "fixed_ms": args.fixed_ms}
    for name, rows in (
        ("weak", scaling(device, lambda n: args.batch_size)),
        ("strong", scaling(device, lambda n: args.global_batch / n)),
    ):
        batch = (
            f"{args.batch_size} images on each device" if name == "weak" else f"{args.global_batch} images on all devices"
        )
        print(f"\n{batch}; images/s, and the share of n times one device:")
        result[name] = rows
        tables.print_table([SCALING_HEADER, *map(_scaling_row, rows)])
    result["one_weird_trick"] = [trick(device, batch, n) for n in (8, 64) for batch in BATCH_SIZES]
    print("\nfc6 and fc7 sharded; ms of communication in a step, and of steps, float32 gradients:")
    tables.print_table([TRICK_HEADER, *map(_trick_row, result["one_weird_trick"])])
    print(f"bytes are equal at {break_even(4):,.0f} images on all devices of a group ({break_even(2):,.0f} with bfloat16)")
    outputs.write_json(file, result)


@dataclasses.dataclass(frozen=True)
class Device:
    """The step of one device.

    Attributes:
      step_ms: milliseconds for `batch_size` images.
      fixed_ms: the part of `step_ms` that does not depend on the batch.
    """

    step_ms: float
    batch_size: int
    fixed_ms: float = 0.0

    def ms(self, images: float) -> float:
        """Milliseconds of a step for a number of images: `fixed_ms`, and a part that is proportional to the images."""
        return self.fixed_ms + (self.step_ms - self.fixed_ms) * images / self.batch_size


def all_reduce_ms(gradient_bytes: float, devices: int, *, ethernet: bool) -> float:
    """Milliseconds of summing gradients over all devices.

    Args:
      ethernet: True for Ethernet between hosts of `PER_HOST` devices; False for NVLink between all devices.
    """
    ring = lambda n: 2 * (n - 1) / n * gradient_bytes
    if not ethernet:
        return 1e3 * ring(devices) / NVLINK
    inside, hosts = min(devices, PER_HOST), -(-devices // PER_HOST)
    return 1e3 * (ring(inside) / NVLINK + ring(hosts) / ETHERNET)


def step_ms(compute_ms: float, communication_ms: float, *, overlap: bool) -> float:
    """Milliseconds of a step with its all-reduce."""
    if not overlap:
        return compute_ms + communication_ms
    return max(compute_ms, FORWARD_SHARE * compute_ms + communication_ms)


def scaling(device: Device, batch_of: Callable[[int], float]) -> list[dict[str, Any]]:
    """Images per second for each number of devices, kind of link and width of gradients, with and without overlap.

    Args:
      batch_of: number of devices -> images on each.
    """
    rows, one = [], 1e3 * device.batch_size / device.step_ms
    for itemsize in (4, 2):
        for ethernet in (False, True):
            for n in DEVICES:
                batch, reduce = batch_of(n), all_reduce_ms(itemsize * (SHARDED + REPLICATED), n, ethernet=ethernet)
                compute = device.ms(batch)
                without, hidden = (1e3 * n * batch / step_ms(compute, reduce, overlap=o) for o in (False, True))
                rows.append(
                    {
                        "links": "Ethernet" if ethernet else "NVLink", "gradient_bits": 8 * itemsize, "devices": n,
                        "batch_per_device": batch, "compute_ms": compute, "all_reduce_ms": reduce,
                        "images_per_second": without, "with_overlap": hidden,
                        "efficiency": without / (n * one), "efficiency_with_overlap": hidden / (n * one),
                    }
                )  # fmt: skip
    return rows


def trick(device: Device, batch_size: int, devices: int, *, itemsize: int = 4, value_bytes: int = 2) -> dict[str, Any]:
    """Milliseconds of communication and of a step: data parallel, and with fc6 and fc7 sharded over the group.

    Ethernet joins a group that has more devices than a host, and each host receives the values of the other hosts once.
    The time to compute is taken as equal: the multiplications are equal, and the update can be sharded without the
    trick, too (reduce-scatter, update of a part, all-gather: the same bytes).

    Args:
      batch_size: of one device.
      itemsize, value_bytes: bytes of a gradient, and of an exchanged value.
    """
    ethernet, compute = devices > PER_HOST, device.ms(batch_size)
    data = all_reduce_ms(itemsize * (SHARDED + REPLICATED), devices, ethernet=ethernet)
    replicated = all_reduce_ms(itemsize * REPLICATED, devices, ethernet=ethernet)
    each = 2 * batch_size * EXCHANGED * value_bytes
    exchange = 1e3 * (min(devices, PER_HOST) - 1) * each / NVLINK
    if ethernet:
        exchange += 1e3 * (devices - PER_HOST) * each / ETHERNET
    data_ms = step_ms(compute, data, overlap=True)
    trick_ms = step_ms(compute, replicated, overlap=True) + exchange
    return {
        "devices": devices,
        "batch_per_device": batch_size,
        "all_reduce_ms": data,
        "trick_ms": replicated + exchange,
        "step_ms": data_ms,
        "step_with_trick_ms": trick_ms,
        "pays": trick_ms < data_ms,
    }


def break_even(itemsize: int, value_bytes: int = 2) -> float:
    """Images on all devices of a group at which the trick and data parallelism send equal bytes.

    2 (n - 1) b x exchanged = 2 (n - 1) / n x gradients of the sharded layers, so that n b does not depend on n.
    """
    return itemsize * SHARDED / (value_bytes * EXCHANGED)


SCALING_HEADER = [
    "links, gradients", "devices", "images each", "step, ms", "all-reduce, ms", "no overlap", "", "overlap", ""
]  # fmt: skip
TRICK_HEADER = [
    "devices", "images each", "all-reduce", "trick", "step, data parallel", "step, trick", "pays"
]  # fmt: skip


def _scaling_row(row):
    return [
        f"{row['links']}, {row['gradient_bits']} bits", str(row["devices"]), f"{row['batch_per_device']:g}",
        f"{row['compute_ms']:.2f}", f"{row['all_reduce_ms']:.2f}", f"{row['images_per_second']:,.0f}",
        f"{row['efficiency']:.0%}", f"{row['with_overlap']:,.0f}", f"{row['efficiency_with_overlap']:.0%}",
    ]  # fmt: skip


def _trick_row(row):
    keys = ("all_reduce_ms", "trick_ms", "step_ms", "step_with_trick_ms")
    return [
        str(row["devices"]), str(row["batch_per_device"]), *(f"{row[k]:.2f}" for k in keys), "yes" if row["pays"] else "no"
    ]  # fmt: skip


if __name__ == "__main__":
    cli.run(main, define_flags)
