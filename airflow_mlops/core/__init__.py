"""What every other layer may rely on: references, decisions, errors, identity, plugin look-up. Standard library only."""
