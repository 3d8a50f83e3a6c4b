"""The embedded demo: 8x8 digits that come with scikit-learn, enlarged to 28x28.

Known: 0 to 4. Negatives: 5 and 6. Held-out negatives: 7. Unseen unknowns: 8 and 9.
Reaches 0.99 to 1.00 known accuracy, AUROC 1.00 on seen negatives and 0.99 on unseen unknowns, in 30 s on 2 cores.

python -m openset_jax.train --config=configs/digits.py --workdir=runs/digits
"""

from configs import default


def get_config():
    config = default.get_config()
    config.steps = 300
    config.batch_size = 128
    config.log_every = 50

    config.data.known = default.images("digits", ("0", "1", "2", "3", "4"))
    config.data.negatives = default.images("digits", ("5", "6"))
    config.data.held_out_negatives = default.images("digits", ("7",))
    config.data.unknown = default.images("digits", ("8", "9"))
    config.data.stored_size = config.data.image_size = 28
    config.data.mean, config.data.std = (0.3, 0.3, 0.3), (0.37, 0.37, 0.37)
    config.augment.pad = 2
    config.augment.flip = False

    config.model.stem = "small"
    config.model.width = 0.125

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 50
    config.eval.every = 100
    config.checkpoint.every = 100
    return config
