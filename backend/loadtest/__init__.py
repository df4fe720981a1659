"""The load test: traffic sent when it is due, whatever became of what was sent before, and what came of it.

An open loop (Schroeder, Wierman, Harchol-Balter: "Open Versus Closed: A Cautionary Tale", NSDI 2006): requests leave by
the schedule alone, and every time is measured from the moment at which a request was *due*. So a server that stalls is
charged for all who would have asked meanwhile, and not only for those that a client of its own pace still sent:
coordinated omission (Gil Tene) is avoided.
"""
