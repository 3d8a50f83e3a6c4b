"""Class imbalance on MNIST: the seven methods of Buda, Maki and Mazurowski 2018 (arXiv 1710.05381), with AlexNet.

    python -m openset_jax.experiment --config=configs/buda_mnist.py --config.run.data.tfds_data_dir=DIR \
        --workdir=runs/buda_mnist
    python -m benchmarks.buda --mnist=runs/buda_mnist --out=DIR

Ten known classes and no "none". Step imbalance (mu: share of minority classes; rho: size of the largest class over the
smallest) and linear imbalance; each seed draws its own minority classes. The baseline has no remedy. Four methods train
networks: oversampling, undersampling, and two-phase training with either of these: all layers on resampled data, then only
the fully connected layers on the original data, at a tenth of the learning rate. Three need no training: thresholding of
baseline, oversampling and undersampling divides the outputs by the class priors. All arms train on the same number of
examples and are compared at their last step.

"small", the default, took 32 minutes on 2 cores (one process for each, --shard=0/2 and --shard=1/2);
--config=configs/buda_mnist.py:full is for an accelerator: the paper's grid, 10 seeds, the full width; 4,150 arms.
With equal class sizes the small network reaches a balanced accuracy of 0.981; with half of the classes 1,000 times smaller,
0.50.

Differences from the paper: AlexNet with dropout and Adam instead of LeNet-5 and SGD; 1,200 steps ("full": 10,000, as in the
paper); the second phase is part of these steps, while in the paper it is added; a tenth of the training images is used for
validation, so the largest class has about 4,900 images, not 5,000; 3 seeds ("full": 10), not 50. The test images are
MNIST's, 892 to 1,135 per class; both metrics are means over classes. For each class, all seeds keep the same images, so the
intervals cover networks and choices of minority classes, but not subsets of the images.
"""

import ml_collections
from ml_collections import config_dict

from configs import default

SIZES = ("small", "full")


def get_config(size="small"):
    small = is_small(size)
    config = ml_collections.ConfigDict()
    config.run = run = default.get_config()
    run.data.known = default.images("tfds:mnist")
    run.data.stored_size = run.data.image_size = 28
    run.data.mean, run.data.std = (0.131,) * 3, (0.308,) * 3
    train(run, steps=1_200 if small else 10_000, width=0.125 if small else 1.0)
    config.seeds = (0, 1, 2) if small else tuple(range(10))
    shares = (0.2, 0.5, 0.8) if small else tuple(i / 10 for i in range(1, 10))
    ratios = (10, 100, 1_000) if small else (10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000)
    linear = (1_000,) if small else ratios
    config.grid = methods(steps_of(shares, ratios), tuple(f"linear:rho={rho}" for rho in linear))
    return config.lock()


def is_small(size):
    """Returns whether `size`, the text after the colon in --config, is "small"; ValueError if it is not in `SIZES`."""
    if size not in SIZES:
        raise ValueError(f"--config: the size {size!r} is not one of {', '.join(SIZES)}")
    return size == "small"


def train(run, *, steps, width):
    """Sets the training fields that all arms share, for MNIST and for CIFAR-10; as in the paper, without augmentation."""
    run.objective.name = "softmax"
    run.early_stopping.metric = "accuracy"  # the only metric that needs no negatives; it selects nothing, see below
    run.steps, run.batch_size, run.log_every = steps, 64, 100
    run.input = "resident"
    run.augment.flip = False
    run.model.stem, run.model.width = "small", width
    run.optimizer.learning_rate = 1e-3 if width < 1 else 1e-4
    run.optimizer.warmup_steps = 100
    run.checkpoint.every = 1_000
    run.eval.every = "100%"  # only at the last step, where all arms are compared


def steps_of(shares, ratios):
    """Returns `sampling.imbalance` for every pair of mu and rho."""
    return tuple(f"step:mu={mu:g},rho={rho}" for mu in shares for rho in ratios)


def methods(steps, linear=()):
    """Returns the grid: every method at every step imbalance; the baseline also with equal classes and linear imbalance."""
    axes = lambda **fields: config_dict.create(**fields)
    grid = ml_collections.ConfigDict()
    grid.baseline = axes(sampling=axes(imbalance=("step:mu=0.5,rho=1", *steps, *linear)))  # rho=1: equal classes
    # Runs are counted in steps, so `oversample` draws the same batches as `balanced`: equal shares of the classes.
    # `undersample` reduces each class once to the size of the smallest; the rest is never used, as in the paper.
    grid.sampled = axes(sampling=axes(imbalance=steps, policy=("oversample", "undersample")))
    grid.two_phase = axes(
        sampling=axes(imbalance=steps, policy=("two_phase",), first_policy=("oversample", "undersample")), trainable=("fc",)
    )
    return grid
