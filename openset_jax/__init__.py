"""Image classification that can also say "none of these"."""

import os

# TensorFlow only reads and decodes images here, and what goes wrong is reported in our words.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
