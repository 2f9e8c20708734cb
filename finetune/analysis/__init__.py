"""What a table of trials says: effects, shares of variance, interactions, diagnosis, a recommendation. No JAX here."""
