"""Image classification that can also say "none of these"."""

import os

# Hides TensorFlow's log lines: it only reads and decodes images here, and its errors become `UserError`s.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
