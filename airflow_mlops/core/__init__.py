"""What every other layer may rely on: references, decisions, errors, identity and plugin look-up. Standard library only."""
