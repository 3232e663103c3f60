"""What chains are worth that a teacher, the model itself, or nobody wrote."""
