"""The command line: argv -> settings -> one run, or several."""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence

HELP = ("-h", "--help")
SWEEP = ("-m", "--multirun")
INTERRUPTED = 128  # plus the signal's number, as shells have it


def main(argv: Sequence[str]) -> int:
    """Does what the command line asks for.

    Args:
      argv: arguments, without the program's name.

    Returns:
      The exit status: 0, 1 for a mistake (told in one sentence on stderr), or 128 plus
      the number of the signal that stopped the work.
    """
    from experiments.folder import RunError
    from experiments.signals import Stopped, interrupting

    debug = "debug=true" in map(str.lower, argv)
    try:
        with interrupting():
            return _dispatch(argv)
    # Wrong settings, unusable folders and full disks are the user's to mend; whatever
    # else happens is a fault of the program and shows itself with its traceback.
    except (RunError, ValueError, OSError) as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return _leave(1)
    except KeyboardInterrupt as stop:
        print(
            "Stopped. What was saved is intact; the same command goes on with "
            "training, and begins anything else again.",
            file=sys.stderr,
        )
        return _leave(INTERRUPTED + (stop.args[0] if stop.args else signal.SIGINT))
    except Stopped as stop:
        return INTERRUPTED + stop.signal


def _dispatch(argv: Sequence[str]) -> int:
    from experiments.arguments import compose, sweep
    from experiments.folder import RunError

    flags = [argument for argument in argv if argument.startswith("-")]
    arguments = [argument for argument in argv if not argument.startswith("-")]
    if unknown := sorted({*flags} - {*HELP, *SWEEP}):
        raise RunError(
            f"{unknown[0]} is no option; there are --help and --multirun (-m), and "
            "settings are key=value"
        )
    if {*flags} & {*HELP}:
        from experiments.usage import usage

        print(usage(arguments), end="")
        return 0
    jobs = sweep(arguments) if {*flags} & {*SWEEP} else [arguments]
    configs = [compose(job) for job in jobs]
    counts = [config.devices for config in configs]
    _use_cores(max(counts) if all(counts) else 0)
    if any(config.distributed for config in configs):
        from experiments import processes

        processes.join()
    for job, config in zip(jobs, configs, strict=True):
        if len(jobs) > 1:
            print(f"--- {' '.join(job)}", flush=True)
        _do(config)
    return 0


def _do(config) -> None:
    from experiments import session, show
    from experiments.config import Mode

    if config.mode is Mode.play:
        from experiments import play  # it knows CarRacing, which others need not load

        return play.play_run(config)
    modes = {
        Mode.train: session.train_run,
        Mode.evaluate: show.evaluate_run,
        Mode.record: show.record_run,
    }
    modes[config.mode](config)


def _leave(status: int) -> int:
    # Loaded only where the work had come so far: importing JAX takes a while.
    processes = sys.modules.get("experiments.processes")
    return processes.leave(status) if processes else status


def _use_cores(wanted: int) -> None:
    """One XLA device for each core, or as many as are wanted; no effect on a GPU.

    Small operations do not parallelise inside a device, a population does over devices.
    """
    import jax

    from envs.adapters.host_backend import LOCAL

    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    # In a process that has used JAX already, the devices are what they are.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", wanted or LOCAL.cores())
