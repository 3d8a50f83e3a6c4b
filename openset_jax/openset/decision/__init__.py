"""From logits to decisions: posterior, calibration, prior correction, threshold."""
