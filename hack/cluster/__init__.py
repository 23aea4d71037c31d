"""A kind cluster for tests and the demo, with or without a container registry.

Where a Docker engine can pull kind's node image, this is plain kind. Where it cannot, the engine
and the node image are first made from Debian packages and pinned Go modules; the cluster that
comes out is the same.
"""
