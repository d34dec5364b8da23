"""
`make demo`: the shop in two web workers, with its own cache server, its own data and people who keep using it.

Everything lives in a temporary directory and ends with this process, and with the `make` that runs it. `REDIS_URL`
names another cache server; of that one, databases 0 to 3 are used.
"""

import argparse
import os
import secrets
import shlex
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from server import ServerError, server_from_environment

from .processes import Child, free_port

TESTS = Path(__file__).resolve().parent.parent
START_SECONDS = 60
LOGINS = """
  {url}
  {url}admin/cacheadmin/console/

  admin / admin   sees every shop
  ruby / ruby     runs Ruby & Co: may see, invalidate and warm its cache
  gold / gold     works for Gold & Sons: may only look (opale, karat and lapis likewise)

  Commands: sh {directory}/manage cache_stats
  Metrics for Prometheus: {url}metrics
  Logs and data: {directory}; traffic.log has the p50 and p95 of each kind of visit, `make measure` of each page
  Ctrl-C stops everything."""


class Failure(Exception):
    """The demo cannot start or go on; the message says why."""


def main(argv=None):
    """Run until SIGINT or SIGTERM. Returns: the exit code."""
    options = parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        run(options)
    except (Failure, ServerError) as error:
        print(f"The demo cannot run: {error}", file=sys.stderr)
        return 1
    except Stopped:
        print("\nStopped.", flush=True)
    return 0


class Stopped(BaseException):
    """Somebody asked the demo to stop. Not an Exception, so that nothing on the way catches it."""


def on_signal(number, frame):
    """Stop once; the cleaning up that follows is not interrupted by a second Ctrl-C."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise Stopped


def parser():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m shop.demo", description="Run the jewelry shop with its cache.")
    parser.add_argument("--port", type=int, default=8000, help="first port to try; 0 for any (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="web workers (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the shops (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=6.0, help="visits a second, 0 for none (default: %(default)s)")
    parser.add_argument("--slow-ms", type=int, default=40, help="ms added to each computation (default: %(default)s)")
    return parser


def run(options):
    """Start the cache server, the data, the web server and the visitors, then wait for one of them to end."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cacheadmin-demo-")))
        redis_url = stack.enter_context(server_from_environment())
        env = environment(options, directory, redis_url)
        write_manage(env, directory)
        print("Creating the shops ...", flush=True)
        # Counts of what is made here are forgotten by the command, and so not sent before it ends.
        seeding = env | {"SHOP_FLUSH_SECONDS": "3600"}
        manage(seeding, directory, "seed_shop", "--migrate", "--scale", str(options.scale))
        port = free_port(options.port)
        url = f"http://127.0.0.1:{port}/"
        children = stack.enter_context(Children())
        children.start("The web server", web_command(options, port), env, directory / "web.log")
        wait_until_ready(url, children)
        if options.rate > 0:
            command = [sys.executable, "-m", "shop.traffic", url, "--rate", str(options.rate)]
            children.start("The traffic", command, env, directory / "traffic.log")
        print(LOGINS.format(url=url, directory=directory), flush=True)
        parent = os.getppid()
        while True:
            time.sleep(0.5)
            children.check()
            if (
                "MAKELEVEL" in os.environ and os.getppid() != parent
            ):  # `make demo` was killed; nobody is left to stop us
                raise Stopped


def environment(options, directory, redis_url):
    """Return the environment of the demo's processes; makes the directory in which workers add up their metrics."""
    metrics = directory / "metrics"
    metrics.mkdir()
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        "PYTHONUNBUFFERED": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        "REDIS_URL": redis_url,
        "SHOP_DB": str(directory / "shop.sqlite3"),
        "SHOP_DEMO": "1",
        "SHOP_SECRET_KEY": secrets.token_urlsafe(40),
        "SHOP_SLOW_MS": str(options.slow_ms),
    }


def write_manage(env, directory):
    """Write a script that does what `manage.py` does on a site, with the settings of this demo."""
    names = ("DJANGO_SETTINGS_MODULE", "PYTHONPATH", "REDIS_URL", "SHOP_DB", "SHOP_DEMO", "SHOP_SECRET_KEY")
    exports = [f"export {name}={shlex.quote(env[name])}" for name in names]
    (directory / "manage").write_text("\n".join([*exports, f'exec {shlex.quote(sys.executable)} -m shop "$@"', ""]))


def web_command(options, port):
    """Return the command line of the web server."""
    conf = Path(__file__).with_name("gunicorn_conf.py")
    return [
        *(sys.executable, "-m", "gunicorn", "shop.wsgi:application", "--config", f"{conf}"),
        *("--workers", str(options.workers), "--bind", f"127.0.0.1:{port}"),
    ]


class Children:
    """The processes of the demo by name; leaving the block stops all of them at once."""

    def __init__(self):
        self.running = {}

    def start(self, name, command, env, log):
        """Start a process that writes to the file `log`."""
        with log.open("wb") as output:
            self.running[name] = Child(command, env=env, log=output), log

    def check(self):
        """Raise: Failure with the end of its log if a process has ended."""
        for name, (child, log) in self.running.items():
            if not child.is_running():
                raise Failure(f"{name} ended.\n{tail(log)}")

    def tails(self):
        """Return the ends of all logs."""
        return "\n".join(tail(log) for _, log in self.running.values())

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        # Asked one after another and waited for afterwards, so that the slowest decides how long it takes.
        for child, _ in self.running.values():
            child.ask_to_stop()
        for child, _ in self.running.values():
            child.stop()


def tail(log):
    """Return the end of a log file."""
    return log.read_text(errors="replace")[-3000:]


def manage(env, directory, *arguments):
    """Run one of Django's commands to its end. Raises: Failure with its output."""
    log, done = directory / f"{arguments[0]}.log", directory / f"{arguments[0]}.done"
    # The guard of `Child` hides the exit code, so success leaves a file.
    script = '"$0" -m shop "$@" && : > "$DONE"'
    with log.open("wb") as output:
        command = ["/bin/sh", "-c", script, sys.executable, *arguments]
        with Child(command, env=env | {"DONE": str(done)}, log=output) as child:
            while child.is_running():
                time.sleep(0.05)
    if not done.exists():
        raise Failure(f"{arguments[0]} failed.\n{tail(log)}")
    print(log.read_text(), end="", flush=True)


def wait_until_ready(url, children):
    """Return once the site answers. Raises: Failure."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        children.check()
        try:
            with urllib.request.urlopen(f"{url}login/", timeout=5):
                return
        except urllib.error.HTTPError as error:
            raise Failure(f"{url}login/ answers {error.code}.\n{children.tails()}") from error
        except OSError:
            time.sleep(0.1)
    raise Failure(f"{url} did not answer within {START_SECONDS} s.")


if __name__ == "__main__":
    sys.exit(main())
