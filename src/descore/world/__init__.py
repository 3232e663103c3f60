"""Short drawn clips whose truth is known; and real footage made worse on purpose; import from the modules."""
