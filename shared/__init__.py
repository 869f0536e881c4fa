"""Code that two or more services use; it imports no service."""
