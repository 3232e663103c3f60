"""Read videos into clips, and write them."""
