"""What proves the product: `unit/` without a node, `system/` on the nodes that `nodes/` drives."""
