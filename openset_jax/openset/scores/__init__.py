"""Open-set scores of images; larger means more unknown."""
