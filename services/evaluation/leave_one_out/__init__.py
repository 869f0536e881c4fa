"""What each tuned number is worth: loads are played with half of it and with twice of it."""
