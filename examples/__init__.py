"""Scripts to start from: a reward model at work on a generator of one's own."""
