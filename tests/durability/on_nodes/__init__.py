"""Programs that are copied to nodes and run there by themselves: the Python of Debian 12, no package, no import of each other."""
