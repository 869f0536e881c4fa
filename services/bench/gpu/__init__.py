"""`slos-serve bench gpu`: what a machine with a GPU must show, in a few minutes."""
