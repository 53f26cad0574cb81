"""OddOneOut: a world whose answer only a query-dependent ranking sees."""
