"""Fashion-MNIST, a hard case: the unseen unknowns (shirt, ankle boot) resemble the known classes and the negatives.

Known: T-shirt, trouser, pullover, sandal, bag. Negatives: dress, coat, sneaker.
Reaches 0.979 known accuracy, AUROC 0.992 on seen negatives and 0.917 on unseen unknowns, in 2.3 minutes on 2 cores.

    python -m openset_jax.train --config=configs/fashion_open.py --config.data.tfds_data_dir=DIR --workdir=runs/fashion_open
"""

from configs import default


def get_config():
    config = default.get_config()
    config.steps = 1_900
    config.batch_size = 128
    config.log_every = 100

    fashion = "tfds:fashion_mnist"
    config.data.known = default.images(fashion, ("T-shirt/top", "Trouser", "Pullover", "Sandal", "Bag"))
    config.data.negatives = default.images(fashion, ("Dress", "Coat", "Sneaker"))
    config.data.unknown = default.images(fashion, ("Shirt", "Ankle boot"))
    config.data.stored_size = config.data.image_size = 28
    config.data.mean, config.data.std = (0.286,) * 3, (0.353,) * 3
    config.augment.pad = 2

    config.model.stem = "small"
    config.model.width = 0.25

    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 100
    config.eval.every = 500
    config.checkpoint.every = 500
    return config
