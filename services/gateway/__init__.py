"""The gateway: serves the OpenAI API, asks the planner for placements, drives the engines."""
