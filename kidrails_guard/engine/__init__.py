"""Model servers behind one interface: the embedded one, and vLLM."""
