"""`slos-serve bench chaos`: a fleet under load while its parts die, hang and lose each other."""
