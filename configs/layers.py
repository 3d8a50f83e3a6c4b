"""An experiment on the layers to train: only the head, the groups above it, all, or all from scratch. Which are enough?

    python -m openset_jax.experiment --config=configs/layers.py:fashion_open --config.run.data.tfds_data_dir=DIR \
        --workdir=runs/layers

After the colon stands a file of configs/. If its runs start from random parameters, the layers are retrained from a network
that was trained without negatives, and compared with training from scratch. If they start from `init_from`, such as those
of folder_pretrained.py, so do all depths; --config.blocks=layers,scratch adds training from scratch. Other depths follow
the name: --config=configs/layers.py:fashion_open,head,conv4,all. Their names are the groups of the network. All depths
have the learning rate of the runs; if it suits only the head, lower it: --config.run.optimizer.learning_rate=3e-4.
"""

from configs import imbalance


def get_config(of="cifar10_open"):
    of, *depths = of.split(",")
    config = imbalance.get_config(of)
    run, layers = config.run, config.grid.layers
    if depths:
        layers.trainable = tuple(depths)
    with config.unlocked():
        if run.init_from:
            train_all = {} if run.trainable == "all" else {"trainable": ("all",)}
            config.grid, config.blocks = {"layers": layers, "scratch": {"init_from": ("",), **train_all}}, ("layers",)
        else:
            config.grid = {"amounts": {"sampling": {"negatives": (0, None)}}, "layers": layers}
            config.blocks = tuple(config.grid)
    return config
