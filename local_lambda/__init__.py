"""A Lambda on your own machine: a Function URL over AWS's own runtime client, with environments that really freeze.

Runs any Lambda handler. It knows nothing of Dialback and must not import the other packages.
"""

from local_lambda.service import LocalLambda, check_init, serve
from local_lambda.settings import EnvironmentState, FunctionSettings, InitError, LogLine

__all__ = ["EnvironmentState", "FunctionSettings", "InitError", "LocalLambda", "LogLine", "check_init", "serve"]
