"""Settings of the demo's web server; gunicorn leaves out those that a version of it does not know."""

from prometheus_client import multiprocess

worker_class = "gthread"
threads = 4
graceful_timeout = 1
keepalive = 5
control_socket_disable = True
loglevel = "warning"


def child_exit(server, worker):
    """Remove the gauges of a worker that is gone, as prometheus_client asks for in multi-process mode."""
    multiprocess.mark_process_dead(worker.pid)
