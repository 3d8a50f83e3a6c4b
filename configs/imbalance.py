"""An experiment on negatives: their number, their sampling, the number of their groups, and the layers to train.

    python -m openset_jax.experiment --config=configs/imbalance.py --config.run.data.tfds_data_dir=DIR \
        --config.run.data.root=CIFAR10 --workdir=runs/imbalance

The runs use configs/fashion_vs_mnist.py. For your own images use --config=configs/imbalance.py:folder
--config.run.data.root=ROOT (see configs/folder.py), for vectors imbalance.py:features, or imbalance.py:features:ROLES (see
configs/features.py), whose 100 arms train at once. Any other file of configs/ can be named after the colon. All arms train
on the same number of examples and are compared at their last step. An axis of the grid is a field of `run` with a tuple of
values; a block runs every combination of its axes; `blocks` selects the blocks. Other numbers of negatives follow the name:
--config=configs/imbalance.py:folder,0.1x,1x,5x runs these, no negatives, and all negatives.
"""

import importlib

import ml_collections
from ml_collections import config_dict

# numbers of negatives, and of groups of negatives, of configs that do not use the defaults below
_AMOUNTS = {
    "fashion_open": ("0.1x", "1x"), "cifar10_open": ("0.1x", "1x"), "digits": ("0.1x", "1x"),
    "features": ("0.05x", "0.1x", "0.2x", "0.5x", "1x"),
}  # fmt: skip
_GROUPS = {"fashion_vs_mnist": (1, 3, None), "fashion_open": (1, 2, None)}


def get_config(of="fashion_vs_mnist"):
    of, *given = of.split(",")
    of, *of_config = of.split(":")
    config = ml_collections.ConfigDict()
    config.run = run = importlib.import_module(f"configs.{of}").get_config(*of_config)
    run.decision.prior = "none=0.5"  # in the deployment, half of the images are "none"
    run.eval.every = "100%"  # only at the last step, where all arms are compared
    own_weight, run.objective.negative_weight = run.objective.negative_weight, None  # the loss does not correct the numbers
    config.seeds = (0, 1, 2, 3, 4) if of == "features" else (0, 1, 2)

    amounts = (*(given or _AMOUNTS.get(of, ("0.1x", "1x", "3x"))), None)
    config.grid = grid = ml_collections.ConfigDict()
    axes = lambda **fields: config_dict.create(**fields)
    # The number of negatives, with natural sampling. 0: objective `softmax`, which rejects only by a threshold.
    grid.amounts = axes(sampling=axes(negatives=(0, *amounts)))
    # Sampling: `undersample` reduces every class once to the size of the smallest; `balanced` draws all classes equally
    # often, in the same batches as `oversample` and `undersample_fresh`. At 1x the classes are already equal.
    unequal = tuple(amount for amount in amounts if amount != "1x")
    grid.policies = axes(sampling=axes(negatives=unequal, policy=("undersample", "balanced")))
    grid.fraction = axes(sampling=axes(negatives=("1x",), policy=("negative_fraction",)))  # 1x, but half of each batch
    # Reweighting in the loss, instead of resampling.
    grid.weights = axes(objective=axes(class_weights=("inverse_frequency",)))
    if own_weight is not None:
        grid.negative_weight = axes(objective=axes(negative_weight=(own_weight,)))
    if run.objective.name != "one_vs_rest":  # it has no softmax to adjust
        grid.adjusted = axes(objective=axes(logit_adjustment=(1.0,)))
        grid.all_zeros = axes(objective=axes(name=("one_vs_rest",)))
    if of != "features":  # one layer on vectors, of any number of groups
        _add_blocks_of_images(grid, run, of)
    config.blocks = tuple(grid)
    return config.lock()


def _add_blocks_of_images(grid, run, of):
    axes = lambda **fields: config_dict.create(**fields)
    head = {} if run.trainable == "head" else {"trainable": ("head",)}
    grid.two_phase = axes(sampling=axes(policy=("two_phase",), first_policy=("oversample", "undersample")), **head)
    # The number of groups of negatives, with the same total number of negatives.
    grid.kinds = axes(sampling=axes(negatives=("0.5x",)), data=axes(negative_groups=_GROUPS.get(of, (1, None))))
    grid.layers = layers(run)


def layers(run):
    """Returns the block of trained layers, which start from `run.init_from`, or else from a network without negatives.

    From the head down, the distances between the groups of the network double; then all layers.
    """
    from openset_jax.model import networks  # here, because it imports JAX

    groups = list(networks.get(run.model.name).groups)
    below = [groups[2**i] for i in range(len(groups)) if 2**i < len(groups) - 1]
    start = {} if run.init_from else {"init_from": ("arm:sampling.negatives=0",)}
    return config_dict.create(**start, trainable=(groups[0], *below, "all"))
