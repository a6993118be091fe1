"""What the strict servers of all platforms stand on: a listener that can die, its calls counted, faults on demand."""
