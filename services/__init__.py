"""The processes of slos-serve; nothing in `shared` imports these."""
