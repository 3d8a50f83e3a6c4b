"""Image classification that can also say "none of these"."""

import os

# TensorFlow only reads and decodes images here: what goes wrong is reported in our words, and oneDNN, which has nothing to
# do, need not announce itself at every start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
