"""Your own vectors, such as the features of any network: a linear layer or hidden layers, trained in seconds.

    ROOT/features.npy    float16 or float32 [n, F], one vector for each image
    ROOT/index.csv       columns id, class, role: known, negatives, held_out_negatives or unknown; optional: split, image

    python -m openset_jax.train --config=configs/features.py --config.data.root=ROOT --workdir=runs/mine

ROOT may also be one .parquet file with these columns and the vectors in the column "embedding". With hidden units:
--config.model.name=mlp. Without a column `role`, name the roles after the file and their classes as fields:
--config=configs/features.py:known+negatives --config.data.known.classes=cat,dog --config.data.negatives.classes=car
"""

from ml_collections import config_dict

from configs import default


def get_config(roles="known+negatives+held_out_negatives+unknown"):
    config = default.get_config()
    config.epochs = 30.0
    config.batch_size = 256
    config.steps_per_call = 20  # a step takes less than a millisecond
    config.log_every = "10%"
    with config.unlocked():
        config.data.root = config_dict.FieldReference("features")
    root = "features:" + config.data.get_ref("root")
    for role in roles.split("+"):
        config.data[role] = default.images(root)

    config.model.name = "linear"
    config.objective.name = "one_vs_rest"
    config.objective.negative_weight = 1.0  # the negatives of a batch weigh as much as its knowns, however many there are
    # With so large an eps, Adam is gradient descent with momentum: features count by their variance, as in a logistic
    # regression, and weight decay is an L2 penalty. Adam itself gives features that hardly vary the same steps as others.
    config.optimizer.eps = 1.0
    config.optimizer.learning_rate = 1.0
    config.optimizer.weight_decay = 0.05
    config.optimizer.warmup_steps = "5%"
    config.eval.batch_size = 1024
    config.eval.every = "100%"  # the last step: AUROC on few validation vectors would select an early one
    config.checkpoint.every = "100%"
    return config
