"""Your own images, in folders: a new head on a network that was trained on ImageNet. Try this config first.

    python -m pip install -e '.[pretrained]'
    python -m openset_jax.train --config=configs/folder_pretrained.py --config.data.root=ROOT --workdir=runs/mine

The folders are those of configs/folder.py. An accelerator is not needed: two cores compute the features of about 90 images
per second, once, and train the head from them in seconds. To train more layers, on random crops and mirror images:
--config.trainable=stage5 (or any other group, or all) --config.optimizer.learning_rate=5e-4 --config.epochs=3
--config.augment.crop=True --config.augment.flip=True.
"""

from configs import folder


def get_config():
    config = folder.get_config()
    config.epochs = 10.0
    config.batch_size = 64
    config.log_every = "5%"
    config.init_from = "pretrained"
    config.trainable = "head"
    config.augment.crop = config.augment.flip = False  # so that the features of each image are computed once

    config.model.name = "efficientnet_lite0"
    # on frozen features it rejects unseen unknowns better than an extra class; see benchmarks/answers/README.md
    config.objective.name = "one_vs_rest"

    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = "5%"
    config.eval.every = "20%"
    config.eval.batch_size = 64
    config.checkpoint.every = "20%"
    return config
