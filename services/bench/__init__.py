"""Measurements that print their results."""
