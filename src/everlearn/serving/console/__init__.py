"""The console: pages about what serves, what was learned and what is decided."""
