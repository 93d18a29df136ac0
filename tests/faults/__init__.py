"""What is cut, stopped or lost on nodes under a witness; not part of `make test`: `make faults`."""
