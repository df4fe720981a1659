"""The eval gate: whether two serving paths give the same tool calls, customer by customer, and what of it is noise.

Pure but for ``client``, ``run`` and ``folder``: cases and answers in, verdicts, scores, intervals and pages out.
"""
