"""CIFAR-10, a hard case: the unseen unknowns (bird, horse) resemble the known classes and the negatives.

Known: airplane, automobile, cat, deer, frog, ship. Negatives: dog, truck.
Reaches 0.836 known accuracy, AUROC 0.940 on seen negatives and 0.744 on unseen unknowns, in 10 minutes on 2 busy cores.

    python -m openset_jax.train --config=configs/cifar10_open.py --config.data.root=CIFAR10 --workdir=runs/cifar10_open

`data.root` is a folder with CIFAR-10 as train/CLASS/*.jpg and test/CLASS/*.jpg (or PNG).
"""

from ml_collections import config_dict

from configs import default


def get_config():
    config = default.get_config()
    config.steps = 5_000
    config.batch_size = 128
    config.log_every = 200

    with config.unlocked():
        config.data.root = config_dict.FieldReference("cifar10")
    cifar10 = "folder:" + config.data.get_ref("root")
    config.data.known = default.images(cifar10, ("airplane", "automobile", "cat", "deer", "frog", "ship"))
    config.data.negatives = default.images(cifar10, ("dog", "truck"))
    config.data.unknown = default.images(cifar10, ("bird", "horse"))
    config.data.stored_size = config.data.image_size = 32
    config.data.mean, config.data.std = (0.491, 0.482, 0.447), (0.247, 0.244, 0.262)
    config.augment.pad = 4

    config.model.stem = "small"
    config.model.width = 0.25

    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 200
    config.eval.every = 1_000
    config.checkpoint.every = 1_000
    return config
