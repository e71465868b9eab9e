"""The tools of an administrator that are not commands of their own: one module each."""
