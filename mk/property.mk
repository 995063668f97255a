# Property tests at a length that no ordinary run has.

.PHONY: property-long
property-long: $(VENV)/.dev ## 100,000 random replies through the streaming guard; keeps the result
	@$(BIN)/python benchmarks/streaming_property.py --cases 100000
