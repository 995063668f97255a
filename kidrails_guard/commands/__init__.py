"""The verbs of `kidrails`, a module each; nothing heavy is imported at the top of one."""
