"""Is the simulator true? The same load through the running system and through its twin."""
