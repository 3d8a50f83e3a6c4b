"""Class imbalance on CIFAR-10: the seven methods of Buda, Maki and Mazurowski 2018 (arXiv 1710.05381), with AlexNet.

    python -m openset_jax.experiment --config=configs/buda_cifar10.py --config.run.data.root=CIFAR10 \
        --workdir=runs/buda_cifar10
    python -m benchmarks.buda --mnist=runs/buda_mnist --cifar10=runs/buda_cifar10 --out=DIR

`data.root` is a folder with CIFAR-10 as train/CLASS/*.jpg and test/CLASS/*.jpg (or PNG). Methods and shared
settings are those of configs/buda_mnist.py.

"small", the default, took 31 minutes on 2 cores (one process for each, --shard=0/2 and --shard=1/2);
--config=configs/buda_cifar10.py:full is for an accelerator: the paper's grid, 10 seeds, the full width; 610 arms.
With equal class sizes the small network reaches a balanced accuracy of 0.52 (the paper: 0.90); with half of the classes 50
times smaller, 0.36.

Differences from the paper: AlexNet with dropout and Adam instead of an all-convolutional network and SGD; the second phase
trains the last three layers instead of two; 1,500 steps of 64 images ("full": 20,000) instead of 70,000 of 256; images
normalised by mean and standard deviation instead of whitened; each seed draws its minority classes (the paper uses the
lowest labels), so the intervals cover networks and choices of minority classes; a tenth of the training images is used for
validation; one learning rate for all, while the paper reports the best of 8 runs on the test images; 3 seeds ("full": 10).
"""

import ml_collections
from ml_collections import config_dict

from configs import buda_mnist, default


def get_config(size="small"):
    small = buda_mnist.is_small(size)
    config = ml_collections.ConfigDict()
    config.run = run = default.get_config()
    with run.unlocked():
        run.data.root = config_dict.FieldReference("cifar10")
    run.data.known = default.images("folder:" + run.data.get_ref("root"))
    run.data.stored_size = run.data.image_size = 32
    run.data.mean, run.data.std = (0.491, 0.482, 0.447), (0.247, 0.244, 0.262)
    buda_mnist.train(run, steps=1_500 if small else 20_000, width=0.125 if small else 1.0)
    config.seeds = (0, 1, 2) if small else tuple(range(10))
    config.grid = buda_mnist.methods(buda_mnist.steps_of((0.2, 0.5, 0.8), (10, 50) if small else (2, 10, 20, 50)))
    return config.lock()
