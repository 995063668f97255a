"""Golden data: schema, personas, generation, pipeline, exports."""
