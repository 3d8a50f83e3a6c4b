"""Equivalent computations of one operation, chosen by platform."""
