"""Kernels that begin where the imports end: half of a short notebook's time is the import of its libraries.

    with warm.kernels() as environment: ...     programs run with it start Jupyter kernels called python3 from a warm process

A server loads the libraries once and forks for each kernel; what Jupyter starts is a small program that asks for the fork, hands it
arguments, environment, folder and its three streams, and lives, hears signals and ends with it. Beyond that a kernel is ipykernel's own.
"""
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

LIBRARIES = ("contrastasc", "torch._dynamo", "accelerate", "sklearn.linear_model", "scipy.stats", "pandas", "matplotlib.pyplot", "ipykernel.kernelapp",
             "IPython.display", "ipywidgets", "anywidget", "contrastasc.study", "contrastasc.deploy", "contrastasc.recipe")


def become_kernel(connection):
    "In the fork: take over what the client sent, and be a kernel until it ends or the client does."
    data, streams, *_ = socket.recv_fds(connection, 1 << 20, 3)
    asked = json.loads(data)
    for number, stream in enumerate(streams): os.dup2(stream, number)
    os.setsid(); os.chdir(asked["folder"])
    os.environ.clear(); os.environ.update(asked["environment"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.sendall(f"{os.getpid()}\n".encode())
    threading.Thread(target=lambda: connection.recv(1) or os.kill(os.getpid(), signal.SIGKILL), daemon=True).start()
    sys.argv = ["ipykernel_launcher", *asked["arguments"], f"--IPKernelApp.parent_handle={os.getppid()}"]
    from ipykernel.kernelapp import launch_new_instance
    launch_new_instance()


def serve(address):
    "Load the libraries, then fork for whoever asks."
    for name in LIBRARIES: __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address); listener.listen()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                return become_kernel(connection)
            connection.close()


def client(address, arguments):
    "What Jupyter starts and stops as the kernel."
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        asked = dict(arguments=arguments, environment=dict(os.environ), folder=os.getcwd())
        socket.send_fds(connection, [json.dumps(asked).encode()], [0, 1, 2])
        kernel = int(connection.makefile().readline())
        for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, lambda n, _: os.kill(kernel, n))
        while connection.recv(1): pass


@contextmanager
def kernels():
    "Environment in which Jupyter's python3 is a fork of a server that runs meanwhile; nothing special where forks are not safe."
    if sys.platform != "linux": yield {}; return
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        address, spec = f"{folder}/socket", Path(folder) / "kernels" / "python3" / "kernel.json"
        spec.parent.mkdir(parents=True)
        argv = [sys.executable, "-I", "-S", __file__, "client", address, "-f", "{connection_file}"]
        spec.write_text(json.dumps(dict(argv=argv, display_name="Python 3", language="python")))
        server = subprocess.Popen([sys.executable, __file__, "serve", address], env=os.environ | dict(MPLBACKEND="module://matplotlib_inline.backend_inline"))
        try:
            while not os.path.exists(address):
                if server.poll() is not None: raise RuntimeError("the warm kernels' server ended; what it said stands above")
                threading.Event().wait(0.1)
            yield dict(JUPYTER_PATH=folder)
        finally: server.terminate(); server.wait()


if __name__ == "__main__": serve(sys.argv[2]) if sys.argv[1] == "serve" else client(sys.argv[2], sys.argv[3:])
