"""Metrics of open-set classification, with 95 % intervals."""
