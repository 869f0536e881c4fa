"""gRPC between our processes: protocol files, generated code, conversion, channels."""
