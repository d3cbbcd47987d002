"""The messages of the contract, which the build generates here."""
