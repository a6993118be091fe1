"""What every other layer may rely on: references, decisions, errors, identity, plugins. Standard library only."""
