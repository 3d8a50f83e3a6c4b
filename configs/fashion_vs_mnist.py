"""Many negatives: ten known classes, and nine times as many negatives as one known class has images.

Known: Fashion-MNIST. Negatives: MNIST digits 0 to 8; digit 9 is held out for validation. Unseen unknowns: grey CIFAR-10.
Reaches 0.886 known accuracy, AUROC 1.000 on seen negatives and 0.981 on unseen unknowns, in 11 minutes on 2 busy cores.

    python -m openset_jax.train --config=configs/fashion_vs_mnist.py --config.data.tfds_data_dir=DIR \
        --config.data.root=CIFAR10 --workdir=runs/fashion_vs_mnist

`data.root` is a folder with CIFAR-10 as train/CLASS/*.jpg and test/CLASS/*.jpg (or PNG).
"""

from ml_collections import config_dict

from configs import default


def get_config():
    config = default.get_config()
    config.steps = 3_000
    config.batch_size = 128
    config.log_every = 100

    with config.unlocked():
        config.data.root = config_dict.FieldReference("cifar10")
    config.data.known = default.images("tfds:fashion_mnist")
    config.data.negatives = default.images("tfds:mnist", map(str, range(9)))
    config.data.held_out_negatives = default.images("tfds:mnist", ("9",))
    config.data.unknown = default.images("folder:" + config.data.get_ref("root"))
    config.data.stored_size = config.data.image_size = 28
    config.data.grey = True
    config.data.mean, config.data.std = (0.286,) * 3, (0.353,) * 3
    config.augment.pad = 2
    config.augment.flip = False  # digits are not symmetric

    config.model.stem = "small"
    config.model.width = 0.25

    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 100
    config.eval.every = 500
    config.checkpoint.every = 500
    return config
