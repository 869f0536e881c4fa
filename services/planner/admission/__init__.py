"""What becomes of requests that wait: rounds of decisions, and promises that can be kept."""
