"""The checks: each looks at a text in one way and returns findings."""
