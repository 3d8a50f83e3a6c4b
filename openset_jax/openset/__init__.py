"""Losses, scores, decisions and metrics of open-set recognition: pure functions of arrays."""
