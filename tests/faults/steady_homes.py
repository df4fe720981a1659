"""``failsoft`` whose adapters stay where rendezvous hashing has them, as in its first minute.

One gateway serves a whole session of tests. Where it placed adapters by the traffic of those that ran before, a test
could not know which box answers whom, and would pass or fail with their order. What measured traffic moves is tested in
``tests/fleet``.
"""

from __future__ import annotations

from gateway.cli.main import main
from gateway.fleet import homes

if __name__ == "__main__":
    homes.LEAST_REQUESTS = 1e12
    main()
