"""Virtual addresses against the real kernel, in network namespaces that the tests make and leave."""
