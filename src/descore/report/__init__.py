"""Records turned into views: pure functions, no disk, no clock, no network."""
