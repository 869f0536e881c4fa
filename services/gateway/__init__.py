"""The front door: speaks the OpenAI API, asks the planner, drives the engines. Decides nothing."""
