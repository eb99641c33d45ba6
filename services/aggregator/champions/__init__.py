"""Which version of a model is its champion: promotions and rollbacks, in MLflow and in our own history."""
