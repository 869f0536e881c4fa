"""A fleet on a Ray cluster: Ray places, restarts and scales actors that run the processes."""
