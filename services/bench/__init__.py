"""Measurements that print; none of them judges."""
