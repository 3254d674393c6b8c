"""The server: takes HTTP requests, invokes functions and relays what they send when they dial back.

It must never import `lambda_client`: the two meet in `protocol`.
"""
