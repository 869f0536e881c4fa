"""Where, in which way and with which promise: the one part that sees all engines."""
