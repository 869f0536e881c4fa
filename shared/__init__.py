"""What two services or more need; imports no service."""
