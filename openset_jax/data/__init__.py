"""Images: where they come from, which are drawn, and how they reach the device."""
