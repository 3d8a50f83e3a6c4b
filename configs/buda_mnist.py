"""Class imbalance on MNIST: the seven methods of Buda, Maki and Mazurowski 2018 (arXiv 1710.05381), with AlexNet.

    python -m openset_jax.experiment --config=configs/buda_mnist.py --config.run.data.tfds_data_dir=DIR \
        --workdir=runs/buda_mnist
    python -m benchmarks.buda --mnist=runs/buda_mnist --out=DIR

Ten known classes and no "none". Of step imbalance (mu: the share of minority classes, rho: largest over smallest class) and
linear imbalance, each seed draws its own minority classes. Trained: as it comes (baseline), oversampling, undersampling, and
two-phase training after either: all layers on resampled data, then the fully connected ones on the data as they are, at a
tenth of the learning rate. The other three, thresholding of the first three, train nothing: they divide outputs by priors.
All arms see as many examples, and are compared at their last step.

"small", the default, took 32 minutes on 2 cores (one process for each, --shard=0/2 and --shard=1/2);
--config=configs/buda_mnist.py:full is for an accelerator: the paper's grid, 10 seeds, the full width; 4,150 arms.
With all classes alike a small network reaches a balanced accuracy of 0.981; with half of them 1,000 times smaller, 0.50.

What differs from the paper: AlexNet with dropout and Adam, not LeNet-5 and SGD; 1,200 steps ("full": 10,000, as there), and
two-phase training has as many as the others, where the paper's second phase came on top; a tenth of the training images
validates, so that the largest class has about 4,900 images, not 5,000; 3 seeds ("full": 10), not 50. Test images are MNIST's
own, nearly but not exactly balanced (892 to 1,135 of a class), which neither mean over classes minds. Of a class, the same
images are kept for all seeds: intervals are of networks and of which classes are small, not of other images of them.
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
    """Whether the part of --config behind the colon says so."""
    if size not in SIZES:
        raise ValueError(f"--config: the size {size!r} is not one of {', '.join(SIZES)}")
    return size == "small"


def train(run, *, steps, width):
    """How all arms are trained, whatever the images: as plainly as the paper does."""
    run.objective.name = "softmax"
    run.early_stopping.metric = "accuracy"  # there are no negatives for another; nothing is selected by it
    run.steps, run.batch_size, run.log_every = steps, 64, 100
    run.input = "resident"
    run.augment.flip = False
    run.model.stem, run.model.width = "small", width
    run.optimizer.learning_rate = 1e-3 if width < 1 else 1e-4
    run.optimizer.warmup_steps = 100
    run.checkpoint.every = 1_000
    with run.unlocked():
        run.eval.every = run.get_ref("steps")  # all arms are compared at their last step: nothing selects another


def steps_of(shares, ratios):
    """Every step imbalance of these mu and rho."""
    return tuple(f"step:mu={mu:g},rho={rho}" for mu in shares for rho in ratios)


def methods(steps, linear=()):
    """The grid: every method at every step imbalance; classes alike and linear imbalance as they come."""
    axes = lambda **fields: config_dict.create(**fields)
    grid = ml_collections.ConfigDict()
    grid.baseline = axes(sampling=axes(imbalance=("step:mu=0.5,rho=1", *steps, *linear)))  # rho=1: all classes alike
    # Counted in steps, oversampling is every class alike in each batch and all images in turn: "balanced" is the same
    # stream. Undersampling cuts classes to the smallest one, once: the rest is never seen, as in the paper.
    grid.sampled = axes(sampling=axes(imbalance=steps, policy=("oversample", "undersample")))
    grid.two_phase = axes(
        sampling=axes(imbalance=steps, policy=("two_phase",), first_policy=("oversample", "undersample")), trainable=("fc",)
    )
    return grid
