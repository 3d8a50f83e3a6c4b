"""How many negatives? Sampled how, of how many kinds, and how much of the network must be trained: one grid of runs.

    python -m openset_jax.experiment --config=configs/imbalance.py --config.run.data.tfds_data_dir=DIR \
        --config.run.data.root=CIFAR10 --workdir=runs/imbalance

The runs are those of configs/fashion_vs_mnist.py; of your own images with --config=configs/imbalance.py:folder and
--config.run.data.root=ROOT (see configs/folder.py), and of any other file of configs/ by its name behind the colon. All
arms see as many examples, and are compared at their last step. Any field of `run` can be an axis of the grid, each
with a tuple of values, of which a block of the grid takes every combination; `blocks` says which blocks to run.
Numbers of negatives that suit your data come after the name: --config=configs/imbalance.py:folder,0.1x,1x,5x tries these,
and none, and all.
"""

import importlib

import ml_collections
from ml_collections import config_dict

# where the founding question's numbers of negatives, and groups of them, are more than there are
_AMOUNTS = {"fashion_open": ("0.1x", "1x"), "cifar10_open": ("0.1x", "1x"), "digits": ("0.1x", "1x")}
_GROUPS = {"fashion_vs_mnist": (1, 3, None), "fashion_open": (1, 2, None)}


def get_config(of="fashion_vs_mnist"):
    of, *given = of.split(",")
    config = ml_collections.ConfigDict()
    config.run = run = importlib.import_module(f"configs.{of}").get_config()
    run.decision.prior = "none=0.5"  # in use, half of the images are none of the known classes
    with run.unlocked():
        run.eval.every = run.get_ref("steps")  # all arms are compared at their last step: nothing selects another
    config.seeds = (0, 1, 2)

    amounts = (*(given or _AMOUNTS.get(of, ("0.1x", "1x", "3x"))), None)
    without = ("arm:sampling.negatives=0",)
    config.grid = grid = ml_collections.ConfigDict()
    axes = lambda **fields: config_dict.create(**fields)
    # How many: every image as often as any other. With 0 the network is `softmax`, and a threshold alone rejects.
    grid.amounts = axes(sampling=axes(negatives=(0, *amounts)))
    # Sampled how: every class cut to the smallest, once; or all classes alike in every batch, which is the stream that
    # oversampling, and undersampling to a fresh subset each epoch, are as well. At 1x there is nothing to balance.
    unequal = tuple(amount for amount in amounts if amount != "1x")
    grid.policies = axes(sampling=axes(negatives=unequal, policy=("undersample", "balanced")))
    grid.fraction = axes(sampling=axes(negatives=("1x",), policy=("negative_fraction",)))  # 1x of images, half of a batch
    grid.two_phase = axes(
        sampling=axes(policy=("two_phase",), first_policy=("oversample", "undersample")), trainable=("head",)
    )
    # The loss instead of the batches.
    grid.weights = axes(objective=axes(class_weights=("inverse_frequency",)))
    grid.adjusted = axes(objective=axes(logit_adjustment=(1.0,)))
    grid.all_zeros = axes(objective=axes(name=("one_vs_rest",)))
    # From how many kinds: as many images each time.
    grid.kinds = axes(sampling=axes(negatives=("0.5x",)), data=axes(negative_groups=_GROUPS.get(of, (1, None))))
    # How much of a network that was trained without negatives.
    grid.layers = axes(init_from=without, trainable=("head", "fc", "all"))
    config.blocks = tuple(grid)
    return config.lock()
