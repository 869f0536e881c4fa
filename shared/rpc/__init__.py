"""The wire: protocol files, generated code, conversion, channels. No decisions."""
