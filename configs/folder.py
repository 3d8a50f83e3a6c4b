"""Your own images, in folders: the full AlexNet at 224x224.

    ROOT/known/CLASS/**.jpg                 the classes to tell apart (JPEG or PNG, any size)
    ROOT/negatives/GROUP/**.jpg             "none of these": anything else, by kind if you can
    ROOT/held_out_negatives/GROUP/**.jpg    if you can: kinds kept for validation only
    ROOT/unknown/GROUP/**.jpg               if you can: kinds kept for testing only

    python -m openset_jax.train --config=configs/folder.py --config.data.root=ROOT --workdir=runs/mine

For an accelerator.
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
