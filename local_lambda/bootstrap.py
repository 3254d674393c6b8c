"""The first lines that run in an environment's process; then AWS's runtime client, as `python -m awslambdaric` does.

A script, run by the function's own interpreter: it must import nothing but the standard library, and little of that.
"""

import os
import runpy
import sys

PR_SET_PDEATHSIG = 1
SIGKILL = 9


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, whatever the parent dies of (prctl(2))."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != parent:  # it died before the call, which then says nothing
        os._exit(1)


def note_events(descriptor: int) -> None:
    """Set the byte of a shared file when the runtime has got an event, before the function sees it."""
    import mmap

    from awslambdaric.lambda_runtime_client import LambdaRuntimeClient

    taken = mmap.mmap(descriptor, 1)  # not a pipe: a function may close every descriptor that it did not open
    os.close(descriptor)
    wait_next_invocation = LambdaRuntimeClient.wait_next_invocation

    def wait_and_note(client: object) -> object:
        event = wait_next_invocation(client)
        taken[0] = 1
        return event

    LambdaRuntimeClient.wait_next_invocation = wait_and_note


def main() -> None:
    """Arguments: the parent's process id, the control group's folder or "", the task root, the handler, the folder of
    kept sources or "", the descriptor of the file for `note_events`.
    """
    parent, group, root, handler, sources, taken = sys.argv[1:7]
    die_with(int(parent))
    if group:  # before any socket exists: a socket belongs to the group in which it was made
        with open(os.path.join(group, "cgroup.procs"), "w") as procs:
            procs.write("0")
    os.environ["AWS_EXECUTION_ENV"] = f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}"
    own_folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [root, *(entry for entry in sys.path if entry != own_folder)]
    sys.argv[1:] = [handler]
    if sources:  # not by `import`: the function may have a module of that name
        runpy.run_path(os.path.join(own_folder, "kept_sources.py"))["keep"](root, sources)
    note_events(int(taken))
    runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
