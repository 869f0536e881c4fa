"""`slos-serve bench chaos`: injects faults into a fleet under load."""
