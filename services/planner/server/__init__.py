"""The planner's service: gRPC, engine streams, metrics, records, and work before it serves."""
