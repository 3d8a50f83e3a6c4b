"""Scores of unknownness; larger means more unknown."""
