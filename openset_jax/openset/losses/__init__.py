"""Training objectives, and how much each example weighs in them."""
