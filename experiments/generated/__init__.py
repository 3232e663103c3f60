"""Generated clips without ratings, sound and harmed: a store of frames, harms that generators have, words, examples."""
