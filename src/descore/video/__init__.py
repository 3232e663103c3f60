"""Read videos into clips: sampling, packets, decoding."""
