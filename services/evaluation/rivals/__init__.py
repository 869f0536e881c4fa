"""Other people's systems on simulated engines, each as it is run at its best."""
