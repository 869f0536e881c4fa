"""Other systems on simulated engines, each in its best setting."""
