"""Other people's systems on simulated engines, each in its best setting."""
