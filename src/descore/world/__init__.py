"""Short drawn clips whose truth is known; import from the modules `scenes`, `drawing` and `telling`."""
