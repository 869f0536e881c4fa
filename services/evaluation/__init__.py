"""Runs loads through whole systems on simulated fleets: ours with the production planner, and
baselines.
"""
