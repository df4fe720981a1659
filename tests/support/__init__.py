"""What all tests share: processes to break, a proxy that breaks what lies between, a client that records every byte,
and a checker of what it recorded.
"""
