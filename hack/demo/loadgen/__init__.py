"""An open-loop load generator that counts every answer by revision, code and correctness.

It runs in the cluster, needs only aiohttp and prometheus-client, and is driven over HTTP.
"""
