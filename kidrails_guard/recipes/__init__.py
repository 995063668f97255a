"""Training recipes: one typed spec, rendered to axolotl or Unsloth, checked before it runs."""
