"""Your own images, in folders: the full AlexNet at 224x224.

    ROOT/known/CLASS/**                 the classes to distinguish: image files of any size
    ROOT/negatives/GROUP/**             "none of these": any other images, one folder per kind if possible
    ROOT/held_out_negatives/GROUP/**    optional: kinds used only for validation
    ROOT/unknown/GROUP/**               optional: kinds used only for testing

    python -m openset_jax.train --config=configs/folder.py --config.data.root=ROOT --workdir=runs/mine

Use a GPU or TPU.
"""

from ml_collections import config_dict

from configs import default


def get_config():
    config = default.get_config()
    with config.unlocked():
        config.data.root = config_dict.FieldReference("images")
    root = "folder:" + config.data.get_ref("root")
    for role in ("known", "negatives", "held_out_negatives", "unknown"):
        config.data[role] = default.images(root)
    return config
