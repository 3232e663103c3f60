"""How the bundled model was grown."""
