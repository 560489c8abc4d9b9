"""Several processes that train as one: started, communicating, and ended together."""
