"""What holds for all tests."""

from hypothesis import settings

# A busy machine is no failure of the code; pytest's own limit still ends a test that hangs.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
