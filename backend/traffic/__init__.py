"""A traffic mix and its arrivals: pure. `failsoft load` asks them of a gateway, `failsoft plan` of a simulation."""
