"""Where a model came from: the chain from an endpoint back to the data bytes."""
