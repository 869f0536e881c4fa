"""How much load a serving system carries while it keeps what its classes ask for."""
