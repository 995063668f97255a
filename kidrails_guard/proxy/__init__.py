"""The guard proxy: OpenAI's API in front of any OpenAI-compatible server."""
