"""Your own images, in folders: a new head on a network that was trained on ImageNet. Try this config first.

    python -m pip install -e '.[pretrained]'
    python -m openset_jax.train --config=configs/folder_pretrained.py --config.data.root=ROOT --workdir=runs/mine

The folders are those of configs/folder.py. An accelerator is not needed: two cores train on about 80 images per second. To
train more layers: --config.trainable=stage7 (or any other group, or all) --config.optimizer.learning_rate=1e-4.
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
