"""How well rewards agree with people: benchmarks, runs that resume, and their records."""
