"""Training: written chains, scores of pairs, and both by reinforcement learning. Configs import no torch."""
