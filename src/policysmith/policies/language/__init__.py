"""Language models as policies: scoring tokens, writing them, and bringing the models themselves."""
