"""What the appliance's own commands run inside one-shot containers: secrets, backup and restore, the smoke test."""
