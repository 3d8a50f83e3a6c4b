"""Training objectives and example weights."""
